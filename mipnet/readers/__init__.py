"""Readers: files and data sets of others, as networks, properties and images."""
