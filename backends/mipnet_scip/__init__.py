"""SCIP as a backend of mipnet."""

from mipnet_scip.adapter import SCIP

__all__ = ["SCIP"]
