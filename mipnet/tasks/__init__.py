"""Questions that mipnet asks of a network."""
