"""Exact answers about small networks: their linear regions over a box, in rational numbers.

A float64 is an integer times a power of two.  So within a linear region every value is an affine function of the free inputs with integer
coefficients times a power of two, and the corners of the region are quotients of integers: nothing here is rounded.  The free inputs
are written as ``lower + t (upper - lower)``, with t in [0, 1]^d and d of 1 to 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations, product

import numpy as np

import mipnet as mn

Row = tuple[int, ...]
"""Coefficients of a function of the free inputs, the constant last; times a power of two that is stored elsewhere."""

REGIONS_MAX = 3000


class TooManyRegions(Exception):
    """The network has more linear regions than are enumerated."""


@dataclass(frozen=True)
class Corner:
    """The point ``numbers[:-1] / numbers[-1]`` with a positive denominator, and a bit for each row that is 0 there."""

    numbers: Row
    tight: int

    def value(self, row: Row) -> int:
        """The row's value times the denominator."""
        return sum(a * b for a, b in zip(row, self.numbers, strict=True))


@dataclass(frozen=True)
class Polytope:
    """The convex hull of its corners; ``cuts`` rows have been cut off so far."""

    corners: tuple[Corner, ...]
    cuts: int
    dimension: int

    @staticmethod
    def cube(dimension: int) -> Polytope:
        corners = (Corner((*ends, 1), sum(1 << (2 * k + end) for k, end in enumerate(ends))) for ends in product((0, 1), repeat=dimension))
        return Polytope(tuple(corners), 2 * dimension, dimension)

    def values(self, row: Row) -> list[int]:
        return [corner.value(row) for corner in self.corners]

    def part(self, row: Row) -> Polytope | None:
        """The points where a row is at least 0: None if there are none."""
        values = self.values(row)
        if min(values) > 0:
            return self
        if max(values) < 0:
            return None
        bit = 1 << self.cuts
        kept = [Corner(c.numbers, c.tight | (0 if v else bit)) for c, v in zip(self.corners, values, strict=True) if v >= 0]
        for a, b in combinations(range(len(values)), 2):
            if (values[a] > 0 > values[b] or values[a] < 0 < values[b]) and self._adjacent(a, b):
                wa, wb = abs(values[b]), abs(values[a])
                numbers = [wa * x + wb * y for x, y in zip(self.corners[a].numbers, self.corners[b].numbers, strict=True)]
                shared = math.gcd(*numbers)
                kept.append(Corner(tuple(x // shared for x in numbers), (self.corners[a].tight & self.corners[b].tight) | bit))
        return Polytope(tuple(kept), self.cuts + 1, self.dimension)

    def _adjacent(self, a: int, b: int) -> bool:
        """Whether the two corners are the ends of an edge: no other corner lies on all the rows that both lie on."""
        common = self.corners[a].tight & self.corners[b].tight
        if common.bit_count() < self.dimension - 1:
            return False
        return not any(c.tight & common == common for k, c in enumerate(self.corners) if k not in (a, b))

    def sides(self, row: Row) -> list[tuple[int, Polytope]]:
        """The parts with an interior where the row is positive (1) and negative (-1)."""
        values = self.values(row)
        if min(values) >= 0 or max(values) <= 0:
            return [(1 if min(values) >= 0 else -1, self)]
        negative = tuple(-a for a in row)
        return [(sign, part) for sign, part in ((1, self.part(row)), (-1, self.part(negative))) if part is not None]


def dyadic(values: np.ndarray) -> tuple[list[int], int]:
    """Integers n and an exponent e with ``values = n 2^e``."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    ratios = [float(value).as_integer_ratio() for value in flat]
    shift = max((denominator.bit_length() - 1 for _, denominator in ratios), default=0)
    return [n << (shift - (d.bit_length() - 1)) for n, d in ratios], -shift


@dataclass(frozen=True)
class Values:
    """Affine functions of the free inputs: integer rows times ``2^exponent``, flat, and their shape."""

    rows: tuple[Row, ...]
    exponent: int
    shape: tuple[int, ...]

    def at(self, exponent: int) -> tuple[Row, ...]:
        """The rows in units of a smaller power of two."""
        factor = 1 << (self.exponent - exponent)
        return tuple(tuple(a * factor for a in row) for row in self.rows)

    def dense(self, weight: np.ndarray, bias: np.ndarray | None) -> Values:
        w, ew = dyadic(weight)
        n, width = weight.shape[1], len(self.rows[0])
        rows = [[sum(w[k * n + i] * self.rows[i][j] for i in range(n) if w[k * n + i]) for j in range(width)] for k in range(len(weight))]
        exponent = self.exponent + ew
        if bias is not None:
            b, eb = dyadic(bias)
            low = min(exponent, eb)
            rows = [[a << (exponent - low) for a in row] for row in rows]
            for row, each in zip(rows, b, strict=True):
                row[-1] += each << (eb - low)
            exponent = low
        return Values(tuple(tuple(row) for row in rows), exponent, (len(rows),))

    @property
    def flat(self) -> Values:
        return Values(self.rows, self.exponent, (len(self.rows),))

    def times(self, factor: float) -> Values:
        (f,), e = dyadic(np.array([factor]))
        return Values(tuple(tuple(f * a for a in row) for row in self.rows), self.exponent + e, self.shape)

    def take(self, places: Sequence[int], shape: tuple[int, ...]) -> Values:
        return Values(tuple(self.rows[k] for k in places), self.exponent, shape)


def joined(parts: Sequence[Values], shape: tuple[int, ...]) -> Values:
    low = min(part.exponent for part in parts)
    return Values(tuple(row for part in parts for row in part.at(low)), low, shape)


def added(parts: Sequence[Values]) -> Values:
    low = min(part.exponent for part in parts)
    rows = tuple(tuple(map(sum, zip(*same, strict=True))) for same in zip(*(part.at(low) for part in parts), strict=True))
    return Values(rows, low, parts[0].shape)


@dataclass(frozen=True)
class Region:
    """A part of the box on which the network is affine: the value of every node there."""

    polytope: Polytope
    values: dict[str, Values]
    output: str

    @property
    def y(self) -> Values:
        return self.values[self.output]

    def range(self, values: Values, k: int) -> tuple[Fraction, Fraction]:
        """The smallest and the largest value of one element."""
        row, unit = values.rows[k], Fraction(2) ** values.exponent
        found = [Fraction(corner.value(row), corner.numbers[-1]) for corner in self.polytope.corners]
        return min(found) * unit, max(found) * unit


@dataclass(frozen=True)
class Exact:
    """The linear regions of a network over a box ``(1, *input_shape)``."""

    network: mn.Network
    lower: np.ndarray
    upper: np.ndarray

    @cached_property
    def free(self) -> list[int]:
        """The flat positions of the inputs that vary."""
        return np.flatnonzero(self.lower.reshape(-1) < self.upper.reshape(-1)).tolist()

    @cached_property
    def x(self) -> Values:
        """The input as a function of t."""
        n = self.lower.size
        ends, exponent = dyadic(np.concatenate([self.lower.reshape(-1), self.upper.reshape(-1)]))
        rows = [[0] * len(self.free) + [ends[i]] for i in range(n)]
        for j, i in enumerate(self.free):
            rows[i][j] = ends[n + i] - ends[i]
        return Values(tuple(tuple(row) for row in rows), exponent, self.lower.shape[1:])

    def regions(self, start: Sequence[Polytope] | None = None) -> list[Region]:
        found = []
        for polytope in start or [Polytope.cube(len(self.free))]:
            for region in self._walk(0, {"input": self.x}, polytope):
                found.append(region)
                if len(found) > REGIONS_MAX:
                    raise TooManyRegions
        return found

    @cached_property
    def all(self) -> list[Region]:
        return self.regions()

    def _walk(self, k: int, values: dict[str, Values], polytope: Polytope) -> Iterator[Region]:
        if k == len(self.network.nodes):
            yield Region(polytope, values, self.network.output.name)
            return
        node = self.network.nodes[k]
        for part, found in pieces(node.layer, [values[name] for name in node.inputs], node.shape, polytope):
            yield from self._walk(k + 1, {**values, node.name: found}, part)

    def extremes(self, weights: np.ndarray) -> tuple[Fraction, Fraction]:
        """The smallest and the largest ``weights @ y``."""
        ends = [region.range(region.y.flat.dense(weights[None], None), 0) for region in self.all]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def node_ranges(self) -> dict[str, list[tuple[Fraction, Fraction]]]:
        """The range of every element of every node."""
        found = {}
        for node in self.network.nodes:
            every = [[region.range(region.values[node.name], k) for k in range(math.prod(node.shape))] for region in self.all]
            found[node.name] = [(min(e[0] for e in ends), max(e[1] for e in ends)) for ends in zip(*every, strict=True)]
        return found

    def holds_somewhere(self, matrix: np.ndarray, right: Sequence[Fraction | float]) -> bool:
        """Whether some input has an output y with ``matrix @ y <= right``."""
        return any(satisfying(region, region.y, matrix, right) is not None for region in self.all)

    def output(self, x: np.ndarray) -> list[Fraction]:
        """The exact output at one input."""
        return Exact(self.network, x, x).point_values()

    def point_values(self) -> list[Fraction]:
        (region,) = self.regions([Polytope((Corner((1,), 0),), 0, 0)])
        return [region.range(region.y, k)[0] for k in range(len(region.y.rows))]


def satisfying(region: Region, values: Values, matrix: np.ndarray, right: Sequence[Fraction | float]) -> Polytope | None:
    """The part of a region where ``matrix @ values <= right``, or None if it is empty."""
    left = values.flat.dense(-np.asarray(matrix, dtype=np.float64), None)
    part: Polytope | None = region.polytope
    for row, end in zip(left.rows, right, strict=True):
        exact = Fraction(end) / Fraction(2) ** left.exponent
        scaled = tuple(a * exact.denominator for a in row)
        part = None if part is None else part.part((*scaled[:-1], scaled[-1] + exact.numerator))
    return part


def pieces(layer: mn.Layer, x: list[Values], shape: tuple[int, ...], polytope: Polytope) -> Iterator[tuple[Polytope, Values]]:
    """The parts of a polytope on which a layer is affine, with its value there."""
    if isinstance(layer, mn.Dense):
        yield polytope, x[0].dense(layer.weight.numpy(), None if layer.bias is None else layer.bias.numpy())
    elif isinstance(layer, mn.Reshape):
        yield polytope, x[0].take(range(len(x[0].rows)), shape)
    elif isinstance(layer, mn.Concat):
        yield polytope, joined(x, shape)
    elif isinstance(layer, mn.Add):
        yield polytope, added([each.times(c) for each, c in zip(x, layer.coefficients, strict=True)])
    elif isinstance(layer, mn.Conv2d):
        yield polytope, convolution(layer, x[0], shape)
    elif isinstance(layer, mn.ReLU | mn.LeakyReLU):
        (low, high), exponent = dyadic(np.array([getattr(layer, "slope", 0.0), 1.0]))
        yield from _bent(x[0], polytope, 0, (), (low, high), exponent)
    elif isinstance(layer, mn.Clip):
        yield from clipped(layer, x[0], polytope)
    elif isinstance(layer, mn.MaxPool2d):
        yield from maxima(layer, x[0], shape, polytope)
    else:
        raise AssertionError(layer)


def convolution(layer: mn.Conv2d, x: Values, shape: tuple[int, ...]) -> Values:
    """A convolution without padding, dilation and groups, as a dense layer."""
    weight = layer.weight.numpy()
    matrix = np.zeros((*shape, *x.shape))
    for c, i, j in np.ndindex(*shape):
        rows, cols = i * layer.stride[0], j * layer.stride[1]
        matrix[c, i, j, :, rows : rows + weight.shape[2], cols : cols + weight.shape[3]] = weight[c]
    bias = None if layer.bias is None else np.repeat(layer.bias.numpy(), shape[1] * shape[2])
    found = x.flat.dense(matrix.reshape(math.prod(shape), -1), bias)
    return Values(found.rows, found.exponent, shape)


def _bent(
    x: Values, polytope: Polytope, k: int, done: tuple[Row, ...], slopes: tuple[int, int], exponent: int
) -> Iterator[tuple[Polytope, Values]]:
    """The parts for a function with a kink at 0 and these slopes below and above it, times a power of two."""
    if k == len(x.rows):
        yield polytope, Values(done, x.exponent + exponent, x.shape)
        return
    for sign, part in polytope.sides(x.rows[k]):
        row = tuple(slopes[sign > 0] * a for a in x.rows[k])
        yield from _bent(x, part, k + 1, (*done, row), slopes, exponent)


def clipped(layer: mn.Clip, x: Values, polytope: Polytope) -> Iterator[tuple[Polytope, Values]]:
    """``min(max(x, low), high) = low + relu(x - low) - relu(x - high)``, in two steps."""
    finite = [end if math.isfinite(end) else 0.0 for end in (layer.low, layer.high)]
    _, exponent = dyadic(np.array(finite))
    low = min(exponent, x.exponent)
    ends = [int(Fraction(end) / Fraction(2) ** low) for end in finite]
    whole = Values(x.at(low), low, x.shape)
    first = [(polytope, whole)] if not math.isfinite(layer.low) else _capped(whole, polytope, 0, (), ends[0], 1)
    for part, value in first:
        yield from [(part, value)] if not math.isfinite(layer.high) else _capped(value, part, 0, (), ends[1], -1)


def _capped(x: Values, polytope: Polytope, k: int, done: tuple[Row, ...], end: int, side: int) -> Iterator[tuple[Polytope, Values]]:
    """The parts for ``max(x, end)`` (side 1) or ``min(x, end)`` (side -1)."""
    if k == len(x.rows):
        yield polytope, Values(done, x.exponent, x.shape)
        return
    row = x.rows[k]
    fixed = (*(0 for _ in row[:-1]), end)
    for sign, part in polytope.sides(tuple(side * (a - b) for a, b in zip(row, fixed, strict=True))):
        yield from _capped(x, part, k + 1, (*done, row if sign > 0 else fixed), end, side)


def maxima(layer: mn.MaxPool2d, x: Values, shape: tuple[int, ...], polytope: Polytope) -> Iterator[tuple[Polytope, Values]]:
    """The parts for a max pooling without padding and dilation."""
    (_, height, width), window = x.shape, layer.window
    candidates = []
    for c, i, j in np.ndindex(*shape):
        rows, cols = (range(at * s, at * s + n) for at, s, n in zip((i, j), window.stride, window.kernel, strict=True))
        candidates.append([c * height * width + r * width + q for r in rows for q in cols])
    yield from _largest(x, polytope, 0, (), candidates, shape)


def _largest(
    x: Values, polytope: Polytope, k: int, done: tuple[Row, ...], candidates: list[list[int]], shape: tuple[int, ...]
) -> Iterator[tuple[Polytope, Values]]:
    if k == len(candidates):
        yield polytope, Values(done, x.exponent, shape)
        return
    for part, row in winners(polytope, [x.rows[c] for c in candidates[k]]):
        yield from _largest(x, part, k + 1, (*done, row), candidates, shape)


def winners(polytope: Polytope, rows: list[Row]) -> Iterator[tuple[Polytope, Row]]:
    """The parts of a polytope on which one row is the largest, with that row."""
    best, rest = [(polytope, rows[0])], rows[1:]
    for row in rest:
        split = []
        for part, now in best:
            for sign, side in part.sides(tuple(a - b for a, b in zip(now, row, strict=True))):
                split.append((side, now if sign > 0 else row))
        best = split
    yield from best
