"""Masks made step by step."""
