"""Two networks on one input."""
