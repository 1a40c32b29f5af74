"""Lower and upper bounds of every node over an input set."""
