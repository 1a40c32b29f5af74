"""Limits of time, memory and disk that hold for a whole call."""
