"""The coordinates of resampling along one axis, as the standard of ONNX defines them."""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array, Ints

RESAMPLING_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
"""The ways to find the place in the input of a place in the output."""


def coordinates(length: int, out: int, factor: float, place: str) -> Array:
    """Return the place in an axis of this length of each of ``out`` places after resampling by ``factor``."""
    at = np.arange(out, dtype=np.float64)
    if place == "align_corners":
        return at * (length - 1) / (out - 1) if out > 1 else np.zeros(1)
    if place == "asymmetric":
        return at / factor
    return np.zeros(1) if place == "pytorch_half_pixel" and out == 1 else (at + 0.5) / factor - 0.5


def linear_matrix(length: int, out: int, factor: float, place: str) -> Array:
    """Return the matrix ``(out, length)`` of linear resampling."""
    at = coordinates(length, out, factor, place).clip(0, length - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    matrix = np.zeros((out, length))
    np.add.at(matrix, (np.arange(out), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(out), high), at - low)
    return matrix


def nearest(length: int, out: int, factor: float, place: str, rounding: str) -> Ints:
    """Return the nearest element of each place; ``rounding`` is the `nearest_mode` of ONNX."""
    at = coordinates(length, out, factor, place)
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }[rounding]
    return np.asarray(rounded.astype(np.int64).clip(0, length - 1))
