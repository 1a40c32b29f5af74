"""What a file makes happen."""
