"""Other ways to score."""
