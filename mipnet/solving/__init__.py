"""Solving, and reading what comes back."""
