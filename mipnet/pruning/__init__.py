"""Importance scores, masks, smaller networks, and rivals."""
