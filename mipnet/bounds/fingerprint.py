"""Hashes of a network and of an input set, by which a file of bounds is matched to what it belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np
from torch import Tensor

from mipnet.network.graph import Network
from mipnet.network.sets import Box


def network_hash(network: Network) -> str:
    """Return the SHA-256 of the input shape and of the name, the inputs, the layer and the weights of every node."""
    digest = hashlib.sha256(repr(network.input_shape).encode())
    for node in network.nodes:
        digest.update(repr((node.name, node.inputs, type(node.layer).__qualname__)).encode())
        for field in fields(node.layer):
            value = getattr(node.layer, field.name)
            digest.update(f"{field.name}:{tuple(value.shape) if isinstance(value, Tensor) else repr(value)}".encode())
            if isinstance(value, Tensor):
                digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def region_hash(region: Box) -> str:
    """Return the SHA-256 of both ends of the boxes, and of the balls or of the polytope if there are any."""
    digest = hashlib.sha256(repr(region.lower.shape).encode())
    for end in (region.lower, region.upper):
        digest.update(np.ascontiguousarray(end + 0.0).data)  # -0 is 0
    if region.ball is not None:
        digest.update(repr((region.ball.norm, region.ball.radius)).encode())
        digest.update(np.ascontiguousarray(region.ball.centre + 0.0).data)
    if region.polytope is not None:
        digest.update(type(region.polytope).__name__.encode())
        for part in region.polytope.parts:
            digest.update(repr(part.shape).encode() + np.ascontiguousarray(part + 0.0).data)
    return digest.hexdigest()
