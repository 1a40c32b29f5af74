"""Masks step by step."""
