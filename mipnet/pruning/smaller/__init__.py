"""Masks, and the smaller network."""
