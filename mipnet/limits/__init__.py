"""Limits of time and memory that hold for a whole call."""
