"""Other methods that score units, and comparisons with them."""
