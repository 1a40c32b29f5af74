"""What is printed: tables of results, and live progress."""
