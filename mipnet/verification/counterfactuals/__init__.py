"""Counterfactuals: the nearest inputs with another answer."""
