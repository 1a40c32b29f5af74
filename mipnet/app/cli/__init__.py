"""The commands of ``mipnet``."""
