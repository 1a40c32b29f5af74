"""The distance of the nearest input with another class: `minimum_distortion`, and its exact value in the three norms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations

import numpy as np

import mipnet as mn
from mipnet.arrays import Array
from tests.scales.exact import Exact, Polytope, Row, dyadic, satisfying
from tests.scales.setting import ROUNDING, SECONDS, Found, Setting

Point = list[Fraction]


def distortion(s: Setting) -> Iterator[Found]:
    """Around a random input of a network with at most two inputs, within the width of the box."""
    if s.case.family == "image" or s.case.lower.size > 2:
        return
    image = s.rng.uniform(s.case.lower, s.case.upper)
    y = s.network.forward(image).reshape(-1)
    label = int(y.argmax())
    if y[label] - np.sort(y)[-2] <= ROUNDING * s.output_size:
        return  # a tie up to rounding
    width = float((s.case.upper - s.case.lower).max())
    clip = None if s.rng.uniform() < 0.5 else (float(s.case.lower.min()), float(s.case.upper.max()))
    for norm in ("linf", "l1", "l2"):
        found = mn.minimum_distortion(s.network, image, label, upper=width, norm=norm, clip=clip, backend=s.backend, time_limit=SECONDS)
        truth = nearest(s, image, label, width, norm, clip)
        text = f"{norm} [{found.lower}, {found.upper}] exact {truth} within {width:.2g}"
        if truth is None:
            yield ("WRONG" if found.upper < math.inf else "right" if found.lower >= 0.999 * width else "wider"), text
        elif found.lower > truth * (1 + 1e-12) or found.upper < truth - 1e-9 * width:
            yield "WRONG", text
        else:
            yield ("right" if found.upper - found.lower <= 1.01e-3 * max(found.upper, 1e-9 * width) else "wider"), text


def nearest(s: Setting, image: Array, label: int, radius: float, norm: str, clip: tuple[float, float] | None) -> float | None:
    """The distance of the nearest input at which another output is at least as large as that of the label; None if there is none.

    The box is divided where the distance in the maximum or the sum norm has a kink; in each part it is linear, and smallest at a corner.
    """
    low, high = image - radius, image + radius
    if clip is not None:
        low, high = np.maximum(low, clip[0]), np.minimum(high, clip[1])
    exact = Exact(s.network, low, high)
    away, unit = differences(exact, image)
    parts = [Polytope.cube(len(exact.free))]
    for row in kinks(away, norm):
        parts = [side for part in parts for _, side in part.sides(row)]
    found = []
    for region in exact.regions(parts):
        for other in range(s.outputs):
            if other != label:
                row = np.zeros((1, s.outputs))
                row[0, label], row[0, other] = 1.0, -1.0
                part = satisfying(region, region.y, row, [0.0])
                if part is not None:
                    corners = [[Fraction(c.value(r), c.numbers[-1]) * Fraction(2) ** unit for r in away] for c in part.corners]
                    found.append(min(distances(corners, norm)))
    if not found:
        return None
    best = math.sqrt(min(found)) if norm == "l2" else float(min(found))
    return best if best <= radius else None


def differences(exact: Exact, image: Array) -> tuple[list[Row], int]:
    """The rows of ``x - image``, and their power of two."""
    centre, exponent = dyadic(image)
    unit = min(exponent, exact.x.exponent)
    return [(*row[:-1], row[-1] - (c << (exponent - unit))) for row, c in zip(exact.x.at(unit), centre, strict=True)], unit


def kinks(away: list[Row], norm: str) -> Iterator[Row]:
    if norm == "l2":
        return
    yield from away
    for one, other in combinations(away, 2) if norm == "linf" else ():
        for sign in (1, -1):
            yield tuple(a + sign * b for a, b in zip(one, other, strict=True))


def distances(corners: list[Point], norm: str) -> Iterator[Fraction]:
    """Distances from 0, the smallest of a convex part among them; in the Euclidean norm their squares."""
    for p in corners:
        yield {"linf": max(map(abs, p)), "l1": sum(map(abs, p), Fraction(0))}.get(norm, dot(p, p))
    if norm == "l2":
        if contains_origin(corners):
            yield Fraction(0)
        for p, q in combinations(corners, 2):  # the nearest point of each segment
            along = [b - a for a, b in zip(p, q, strict=True)]
            share = -dot(p, along) / dot(along, along)
            if 0 < share < 1:
                point = [a + share * b for a, b in zip(p, along, strict=True)]
                yield dot(point, point)


def dot(p: Point, q: Point) -> Fraction:
    return sum((a * b for a, b in zip(p, q, strict=True)), Fraction(0))


def contains_origin(corners: list[Point]) -> bool:
    """Whether 0 lies in the convex hull of points of the plane: in the triangle of some three of them."""
    for a, b, c in combinations(corners, 3) if len(corners[0]) == 2 else ():
        turns = [p[0] * q[1] - p[1] * q[0] for p, q in ((a, b), (b, c), (c, a))]
        if min(turns) >= 0 or max(turns) <= 0:
            return True
    return False
