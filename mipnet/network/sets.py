"""Input sets of a network: fixed images (`Samples`), a box (`Box`), a ball of a norm (`LInf`, `L1`, `L2`), or a box cut by a polytope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array, Mask, Shape
from mipnet.errors import DataError, shown, suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.network.given_arrays import aligned, layout_hint, numbers, spread
from mipnet.network.named_inputs import Names, in_input_order, input_order, names_of_inputs
from mipnet.network.polytopes import InputPolytope

INSIDE_POLYTOPE_TOLERANCE = 1e-9
"""How far a point may lie outside of a polytope that it was projected onto, in the maximum norm."""

BALL_MARGIN = 1e-12
"""Projections onto a ball use a radius that is smaller by this share, for rounding errors of float64."""


def _finite(value: ArrayLike, what: str) -> Array:
    array = np.array(numbers(value, what), dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite numbers; expected finite ones")
    array.setflags(write=False)
    return array


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Ball:
    """All x with ``|x - centre| <= radius`` in the sum norm (``l1``) or the Euclidean norm (``l2``), one ball per sample.

    ``centre`` has shape ``(sample, *input_shape)``; the norm is taken over all inputs of a sample.
    """

    centre: Array
    radius: float
    norm: Literal["l1", "l2"]
    input_names: Names = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_names", names_of_inputs(self.centre, "the centre"))
        object.__setattr__(self, "centre", _finite(self.centre, "the centre"))
        if not isinstance(self.norm, str) or self.norm not in ("l1", "l2"):
            raise DataError(f"the norm of a ball is {shown(self.norm)}; expected `l1` or `l2`, or a box for the maximum norm")
        if not self.centre.ndim:
            raise DataError(f"the centre is {shown(float(self.centre))}; expected an array of shape (samples, *shape of one sample)")
        if not (np.isfinite(self.radius) and self.radius > 0):
            raise DataError(f"the radius of a ball is {self.radius}; expected a finite number above 0")

    def with_inputs(self, names: Sequence[str]) -> Ball:
        """Return the same ball with its inputs in the order of these names, if they have names; raises `DataError` for other names."""
        return replace(self, centre=in_input_order(self.centre, self.input_names, names, "the centre")) if self.input_names else self

    @expects("an array of inputs of shape (n, *input shape)")
    def distance(self, x: Array) -> Array:
        """Return the distance, of shape ``(n,)``, of inputs ``(n, *input_shape)`` from their centres, or from the only centre."""
        return np.asarray(np.linalg.norm((x - self.centre).reshape(len(x), self.centre[0].size), 1 if self.norm == "l1" else 2, axis=1))

    @expects("an array of inputs of shape (n, *input shape)")
    def nearest(self, x: Array) -> Array:
        """Return the nearest point of the ball for each input; every coordinate moves towards that of the centre, if at all.

        In the sum norm every coordinate moves by the same amount, or up to the centre (Duchi et al., "Efficient Projections onto
        the l1-Ball for Learning in High Dimensions", ICML 2008, figure 1); in the Euclidean norm all differences are scaled by one factor.
        """
        away, radius = (x - self.centre).reshape(len(x), self.centre[0].size), self.radius * (1 - BALL_MARGIN)
        outside = np.atleast_1d(self.distance(x) > self.radius)
        if self.norm == "l2":
            moved = away * (radius / np.maximum(np.linalg.norm(away, axis=1), radius))[:, None]
        else:
            size = np.sort(np.abs(away), axis=1)[:, ::-1]
            cut = (size.cumsum(1) - radius) / np.arange(1, size.shape[1] + 1)
            count = np.maximum((size > cut).sum(1), 1)
            moved = np.sign(away) * np.maximum(np.abs(away) - np.maximum(cut[np.arange(len(x)), count - 1], 0.0)[:, None], 0.0)
        inside: Array = np.where(outside.reshape(-1, *[1] * (x.ndim - 1)), self.centre + moved.reshape(x.shape), x)
        return inside


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Box:
    """All inputs x with ``lower <= x <= upper``, one box per sample: arrays of shape ``(sample, *input_shape)``.

    With a ``ball``, whose centre lies in the box, the set is the intersection of box and ball; `L1` and `L2` return such sets.  With a
    ``polytope``, it is the intersection of each box and the polytope; `mipnet.Polytope` and `mipnet.ConvexHull` return such sets.
    ``input_names`` are the names of the columns of labelled arrays; `fit` puts them in the order of a network.
    """

    lower: Array
    upper: Array
    ball: Ball | None = None
    polytope: InputPolytope | None = None
    input_names: Names = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        what = "the lower end of the box", "the upper end of the box"
        lower, upper = aligned(self.lower, self.upper, "the ends of the box")
        first, second = names_of_inputs(lower, what[0]), names_of_inputs(upper, what[1])
        names = next((each.input_names for each in (self.ball, self.polytope) if each is not None and each.input_names), ())
        names = first or second or names
        object.__setattr__(self, "input_names", names)
        object.__setattr__(self, "lower", _finite(lower, what[0]))
        object.__setattr__(self, "upper", in_input_order(_finite(upper, what[1]), second, names, what[1]))
        object.__setattr__(self, "ball", self.ball and self.ball.with_inputs(names))
        object.__setattr__(self, "polytope", self.polytope and self.polytope.with_inputs(names))
        if self.lower.shape != self.upper.shape:
            raise DataError(f"the box has ends of shapes {self.lower.shape} and {self.upper.shape}; expected the same shape")
        if not self.lower.ndim:
            ends = f"{self.lower} and {self.upper}"
            raise DataError(f"the box has the numbers {ends} as its ends; expected arrays of shape (samples, *shape of one sample)")
        if (self.lower > self.upper).any():
            raise DataError(f"the box is empty: lower > upper in {np.count_nonzero(self.lower > self.upper)} places")
        if self.ball is not None and self.ball.centre.shape != self.lower.shape:
            raise DataError(f"the ball has a centre of shape {self.ball.centre.shape}, the box ends of shape {self.lower.shape}")
        if self.polytope is not None and self.ball is not None:
            raise DataError("the box has a ball and a polytope; expected at most one of them")
        if self.polytope is not None and len(self.lower) and len(self.polytope.inside) != self.lower[0].size:
            raise DataError(f"the polytope has {len(self.polytope.inside)} inputs; the box has ends of shape {self.lower.shape}")

    @property
    def fixed(self) -> bool:
        """True if the set contains one point per sample."""
        return bool((self.lower == self.upper).all())

    @property
    def samples(self) -> int:
        """Number of samples, that is of boxes."""
        return len(self.lower)

    @property
    def centre(self) -> Array:
        """The centre of each box, or of each ball; a point of each box near the polytope's own if there is a polytope."""
        if self.polytope is not None:
            return self.nearest(np.broadcast_to(self.polytope.inside.reshape(1, *self.lower.shape[1:]), self.lower.shape))
        return (self.lower + self.upper) / 2 if self.ball is None else self.ball.centre

    @suggest_keywords
    def fit(self, shape: Shape, names: Sequence[str] = ()) -> Box:
        """Return the same set with a leading sample axis, and with its inputs in the order of ``names`` if they have names.

        Raises `DataError` unless the other axes have the given ``shape``, and for other names.
        """
        shape = tuple(shape)
        if self.input_names and names and self.input_names != tuple(names):
            order = input_order(self.input_names, names, "the input set")
            ball = self.ball and replace(self.ball, centre=self.ball.centre[..., order])
            return Box(self.lower[..., order], self.upper[..., order], ball, self.polytope and self.polytope.ordered(order)).fit(shape)
        if self.lower.shape == shape:
            return self.reshape((1, *shape))
        if self.lower.shape[1:] != shape or not len(self.lower):
            takes, hint = ", ".join(map(str, shape)), layout_hint(self.lower.shape, shape)
            raise DataError(f"the input set has shape {self.lower.shape}; the network takes (samples, {takes}){hint}")
        return self

    def named(self, names: Names) -> Box:
        """Return the same set whose inputs have these names."""
        box = replace(self)
        object.__setattr__(box, "input_names", names)
        return box

    @suggest_keywords
    def only(self, k: int) -> Box:
        """Return the set of sample ``k``."""
        ball = None if self.ball is None else replace(self.ball, centre=self.ball.centre[k : k + 1])
        return Box(self.lower[k : k + 1], self.upper[k : k + 1], ball, self.polytope).named(self.input_names)

    @suggest_keywords
    @expects("a shape with as many elements as the box has, samples first")
    def reshape(self, shape: Shape) -> Box:
        """Return the same set for inputs of another shape, samples first."""
        ball = None if self.ball is None else replace(self.ball, centre=self.ball.centre.reshape(shape))
        return Box(self.lower.reshape(shape), self.upper.reshape(shape), ball, self.polytope).named(self.input_names)

    @suggest_keywords
    def widen(self, epsilon: float) -> Box:
        """Return all points within ``epsilon`` of the box in the maximum norm; ball and polytope are kept only if ``epsilon`` is 0."""
        return self if epsilon == 0 else Box(self.lower - epsilon, self.upper + epsilon).named(self.input_names)

    @suggest_keywords
    def contains(self, x: Array, tolerance: float = 1e-6) -> bool:
        """Return True if every sample of ``x`` lies in the set, up to ``tolerance`` in each coordinate and in the ball's norm.

        The distance from a polytope is that in the maximum norm.
        """
        x = numbers(x, "the input")
        if x.shape != self.lower.shape:
            raise DataError(f"the input has shape {x.shape}; the ends of the box {self.lower.shape}: expected the same shape")
        inside = bool((x >= self.lower - tolerance).all() and (x <= self.upper + tolerance).all())
        return inside and bool(self.meets_further(x, tolerance).all())

    @expects("an array of inputs of shape (n, *input shape)")
    @expects("an array of inputs of shape (n, *input shape), and a number")
    def meets_further(self, x: Array, tolerance: float = 0.0) -> Mask:
        """Return which inputs ``(n, *shape)`` lie in the ball and in the polytope, if there are any."""
        if self.ball is not None:
            return np.asarray(self.ball.distance(x) <= self.ball.radius + tolerance)
        if self.polytope is not None:
            return np.asarray(self.polytope.violation(x.reshape(len(x), len(self.polytope.inside))) <= tolerance)
        return np.ones(len(x), dtype=np.bool_)

    @suggest_keywords
    def within(self, other: Box) -> bool:
        """Return True if the other set contains this one.  Balls need equal norms and centres; polytopes are equal."""
        if self.lower.shape != other.lower.shape or (self.lower < other.lower).any() or (self.upper > other.upper).any():
            return False
        if other.polytope is not None and not other.polytope.same(self.polytope):
            return False
        if other.ball is None:
            return True
        own = self.ball
        same = own is not None and own.norm == other.ball.norm and bool((own.centre == other.ball.centre).all())
        return same and own is not None and own.radius <= other.ball.radius

    @expects("an array of inputs of shape (n, *input shape)")
    def nearest(self, x: Array) -> Array:
        """Return each input ``(n, *input_shape)`` clipped to the box, and then projected onto the ball, or onto box and polytope.

        In high dimensions the projection onto a hull of many points is a point near it.
        """
        clipped: Array = np.clip(x, self.lower, self.upper)
        if self.polytope is not None:
            flat = (each.reshape(len(each), len(self.polytope.inside)) for each in (clipped, self.lower, self.upper))
            return self.polytope.nearest(*flat).reshape(clipped.shape)
        return clipped if self.ball is None else self.ball.nearest(clipped)

    @expects("an array of inputs of shape (n, *input shape)")
    def inside(self, x: Array) -> Array:
        """Return `nearest` of some inputs, without those for which it found no point of box and polytope together."""
        found = self.nearest(x)
        if self.polytope is None:
            return found
        boxed = found[((found >= self.lower) & (found <= self.upper)).all(axis=tuple(range(1, found.ndim)))]
        return np.asarray(boxed[self.meets_further(boxed, INSIDE_POLYTOPE_TOLERANCE)])


@suggest_keywords
def Samples(images: ArrayLike) -> Box:  # noqa: N802  (reads as a type where it is used)
    """Return fixed images of shape ``(sample, *input_shape)`` as a set: a box with equal ends."""
    given = numbers(images, "the array of images")
    return Box(given, given).named(names_of_inputs(images, "the array of images"))


@suggest_keywords
def LInf(centre: ArrayLike, radius: float | ArrayLike, lower: float = -np.inf, upper: float = np.inf) -> Box:  # noqa: N802
    """Return all x with ``|x - centre| <= radius`` in every coordinate, clipped to ``[lower, upper]``, the valid range of a pixel."""
    centre, radius = spread(centre, radius, "the centre and the radius")
    middle, reach = _finite(centre, "the centre"), _finite(radius, "the radius")
    if (reach < 0).any():
        raise DataError(f"the radius is {float(reach.min())}; expected a number of at least 0")
    if not lower <= upper:
        raise DataError(f"the valid range is [{lower}, {upper}]; expected lower <= upper")
    try:
        np.broadcast_to(reach, middle.shape)
    except ValueError:
        shapes = f"the radius has shape {reach.shape}, the centre {middle.shape}"
        raise DataError(f"{shapes}; expected one number, or one for each coordinate") from None
    ends = np.maximum(middle - reach, lower), np.minimum(middle + reach, upper)
    if (ends[0] > ends[1]).any():
        raise DataError(f"the ball misses the valid range [{lower}, {upper}] in {np.count_nonzero(ends[0] > ends[1])} coordinates")
    return Box(*ends).named(names_of_inputs(centre, "the centre"))


@suggest_keywords
def L1(centre: ArrayLike, radius: float, lower: float = -np.inf, upper: float = np.inf) -> Box:  # noqa: N802
    """Return all x with ``sum |x - centre| <= radius`` per sample, clipped to ``[lower, upper]``, which contains the centre."""
    return _ball(centre, radius, "l1", lower, upper)


@suggest_keywords
def L2(centre: ArrayLike, radius: float, lower: float = -np.inf, upper: float = np.inf) -> Box:  # noqa: N802
    """Return all x with ``sum (x - centre)^2 <= radius^2`` per sample, clipped to ``[lower, upper]``, which contains the centre."""
    return _ball(centre, radius, "l2", lower, upper)


def _ball(centre: ArrayLike, radius: float, norm: Literal["l1", "l2"], lower: float, upper: float) -> Box:
    box, middle = LInf(centre, radius, lower, upper), _finite(centre, "the centre")
    outside = (middle < lower) | (middle > upper)
    if outside.any():
        raise DataError(f"the centre lies outside of the valid range [{lower}, {upper}] in {np.count_nonzero(outside)} coordinates")
    return Box(box.lower, box.upper, Ball(middle, radius, norm)).named(box.input_names)
