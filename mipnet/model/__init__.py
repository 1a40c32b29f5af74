"""A network as a linopy model."""
