"""Readers of networks, properties and data sets."""
