"""Rows that keep the input of a network in a polytope: half-spaces as they are, a convex hull by weights of its points.

half-spaces   A x <= b
hull          x - P^T w <= e,   x - P^T w >= -e,   sum(w) = 1,   0 <= w <= 1,   with one weight per point and sample; = where e is 0
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array, Csr, Mask
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import Sense, add_rows, add_variables, coordinates
from mipnet.network.polytopes import HalfSpaces, Hull, InputPolytope

POLYTOPE_ROWS = "polytope"
"""Name of the rows of half-spaces, and the beginning of the names of the rows of a hull."""

HULL_WEIGHTS = "hull_weight"
"""Name of the weights of a hull."""

HULL_SIDES: tuple[tuple[str, Sense, float], ...] = (("is", "=", 0.0), ("at_most", "<=", 1.0), ("at_least", ">=", -1.0))
"""The groups of rows of a hull: the ends of their names, their sense, and the factor of the enlargement on their right."""


def add_polytope(model: linopy.Model, polytope: InputPolytope, x: Affine, prefix: str, samples: xr.DataArray) -> list[str]:
    """Add the rows of a polytope for an input of shape ``(sample, *input_shape)``, and return their names.

    A hull also gets the variables of `hull_fill`.  Rows without variables are left out: constant inputs are checked before.
    """
    x = x.reshape(len(x.constant), -1)
    name = f"{prefix}{POLYTOPE_ROWS}"
    if isinstance(polytope, HalfSpaces):
        matrix = Csr(polytope.matrix)
        return _rows(model, name, x.through(matrix, x.constant @ polytope.matrix.T), "<=", polytope.rhs, samples)
    count = len(polytope.points)
    coords = coordinates(("sample", f"{name}_point"), (len(x.constant), count), samples)
    w = add_variables(model, f"{prefix}{HULL_WEIGHTS}", 0.0, 1.0, coords)
    weights = Affine.of(w.labels.values)
    none, sums = np.zeros(x.shape), np.zeros((len(x.constant), 1))
    away = x - weights.through(Csr(polytope.points.T), none)
    names = _rows(model, f"{name}_weights", weights.through(Csr(np.ones((1, count))), sums), "=", np.ones(1), samples)
    for side, sense, factor in HULL_SIDES:
        where = (polytope.enlarge == 0) == (side == "is")
        names += _rows(model, f"{name}_{side}", away, sense, factor * polytope.enlarge, samples, where)
    return names


def hull_fill(hull: Hull, x: Affine) -> Callable[[Array], Array]:
    """Return the function from a point by label to the weights of a hull, ``(sample, point)``, for the input x."""
    return partial(_weights_at, hull, x.reshape(len(x.constant), -1))


def _weights_at(hull: Hull, x: Affine, point: Array) -> Array:
    given = x.evaluate(point)
    known = ~np.isnan(given).any(axis=1)
    found = np.full((len(given), len(hull.points)), np.nan)
    found[known] = [hull.weights(each) for each in given[known]]
    return found


def _rows(
    model: linopy.Model, name: str, value: Affine, sense: Sense, right: Array, samples: xr.DataArray, where: Mask | None = None
) -> list[str]:
    """Add those of the rows ``(sample, row)`` that have variables, and return their names."""
    chosen = (value.row_sizes > 0).reshape(value.shape)
    if where is not None:
        chosen &= where
    if not chosen.any():
        return []
    ends = np.broadcast_to(right, value.shape)
    if chosen.all():
        add_rows(model, name, value, sense, ends, ("sample", f"{name}_row"), samples)
    else:
        add_rows(model, name, value[chosen], sense, ends[chosen], (f"{name}_row",), samples)
    return [name]
