"""Masks and smaller networks."""
