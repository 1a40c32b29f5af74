"""Networks, gates, input sets and properties."""
