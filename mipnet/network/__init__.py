"""What a network is, over which inputs, and what is asked of it."""
