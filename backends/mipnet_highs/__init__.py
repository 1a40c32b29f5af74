"""HiGHS as a backend of mipnet."""

from mipnet_highs.adapter import HiGHS

__all__ = ["HiGHS"]
