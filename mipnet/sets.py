"""What the input of a network ranges over: fixed images (`Samples`), a box (`Box`), a maximum-norm ball (`LInf`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mipnet.errors import DataError
from mipnet.ir import Array, Shape


def _finite(value: ArrayLike, what: str) -> Array:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} is not an array of numbers ({error}); expected numbers in shape (samples, *input shape)") from None
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite numbers; expected finite ones")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Box:
    """All inputs x with ``lower <= x <= upper``, one box a sample: arrays of shape ``(sample, *input_shape)``."""

    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", _finite(self.lower, "the lower end of the box"))
        object.__setattr__(self, "upper", _finite(self.upper, "the upper end of the box"))
        if self.lower.shape != self.upper.shape:
            raise DataError(f"the box has ends of shapes {self.lower.shape} and {self.upper.shape}; expected the same shape")
        if (self.lower > self.upper).any():
            raise DataError(f"the box is empty: lower > upper in {np.count_nonzero(self.lower > self.upper)} places")

    @property
    def fixed(self) -> bool:
        """True if the set holds one point for each sample."""
        return bool((self.lower == self.upper).all())

    @property
    def samples(self) -> int:
        """How many samples, that is boxes, there are."""
        return len(self.lower)

    @property
    def centre(self) -> Array:
        """The middle of each box."""
        return (self.lower + self.upper) / 2

    def fit(self, shape: Shape) -> Box:
        """The same set with a sample axis in front; raises `DataError` unless what follows it is ``shape``."""
        if self.lower.shape == shape:
            return Box(self.lower[None], self.upper[None])
        if self.lower.shape[1:] != shape or not len(self.lower):
            raise DataError(f"the input set has shape {self.lower.shape}; the network takes (samples, {', '.join(map(str, shape))})")
        return self

    def widen(self, epsilon: float) -> Box:
        """Every point within ``epsilon`` of the set in the maximum norm."""
        return Box(self.lower - epsilon, self.upper + epsilon)

    def contains(self, x: Array, tolerance: float = 1e-6) -> bool:
        """True if every sample of ``x`` lies in its box, give or take ``tolerance``."""
        return bool((x >= self.lower - tolerance).all() and (x <= self.upper + tolerance).all())


def Samples(images: ArrayLike) -> Box:  # noqa: N802  (reads as a type where it is used)
    """Fixed images of shape ``(sample, *input_shape)``: a box without width."""
    return Box(np.asarray(images), np.asarray(images))


def LInf(centre: ArrayLike, radius: float | ArrayLike, lower: float = -np.inf, upper: float = np.inf) -> Box:  # noqa: N802
    """All x with ``|x - centre| <= radius`` in every coordinate, clipped to ``[lower, upper]`` (the valid range of a pixel, say)."""
    middle, reach = _finite(centre, "the centre"), _finite(radius, "the radius")
    if (reach < 0).any():
        raise DataError(f"the radius is {float(reach.min())}; expected a number of at least 0")
    if not lower <= upper:
        raise DataError(f"the valid range is [{lower}, {upper}]; expected lower <= upper")
    ends = np.maximum(middle - reach, lower), np.minimum(middle + reach, upper)
    if (ends[0] > ends[1]).any():
        raise DataError(f"the ball misses the valid range [{lower}, {upper}] in {np.count_nonzero(ends[0] > ends[1])} coordinates")
    return Box(*ends)
