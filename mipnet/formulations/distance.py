"""The distance of a network's input from a point as variables of a model: the l1 and maximum norm exactly, l2 by tangents.

Distances are in units of a radius r, one for all inputs or one for each.  With ``u = (x - centre) / r``, the variables t are

* ``l1``: one per input, ``t >= |u|``, and their sum is the distance;
* ``l2``: one per input, ``t >= u^2``, and their sum is the squared distance.  The model contains the tangents ``t >= 2 p u - p^2`` at two
  values of p, an outer approximation.  `mipnet.solving.separators.Squares` adds further tangents at points that violate ``t >= u^2``.
  One variable per square needs far fewer tangents than the norm as a whole (Vielma, Dunning, Huchette, Lubin, "Extended Formulations in
  Mixed Integer Conic Quadratic Programming", 2017);
* ``linf``: one per sample, ``t >= |u|`` for every input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import linopy
import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array, Csr, Ints, Shape
from mipnet.errors.expectations import expects
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables, coordinates
from mipnet.network.sets import Box

Norm = Literal["linf", "l1", "l2"]
"""The maximum norm, the sum of absolute values, and the Euclidean norm."""

DISTANCE_VARIABLE = "distance"
"""Name of the variables of a distance."""

DISTANCE_ROWS = f"{DISTANCE_VARIABLE}_above", f"{DISTANCE_VARIABLE}_below"
"""Names of the rows of a distance."""

BALL_ROWS = f"{DISTANCE_VARIABLE}_within"
"""Name of the rows that keep the input within a ball."""


@dataclass(frozen=True, eq=False)
class Square:
    """``t >= ((x - centre) / radius)^2`` for variables x and t by label; the arrays have shape ``(inputs of all samples,)``."""

    x: Ints
    t: Ints
    centre: Array
    radius: Array


@expects("a radius: a number, or one for each input")
def radii(radius: float | Array, shape: Shape) -> Array:
    """Return one radius per input of a centre of this shape."""
    return np.broadcast_to(np.asarray(radius, dtype=np.float64), shape)


def add_distance(
    model: linopy.Model,
    x: Affine,
    region: Box,
    centre: Array,
    radius: float | Array,
    norm: Norm,
    dims: tuple[str, ...],
    samples: xr.DataArray,
) -> tuple[linopy.Variable, Callable[[torch.Tensor], torch.Tensor]]:
    """Add the variables ``distance`` and their rows, and return them with a function that computes them from points ``(n, label)``.

    ``x`` has one variable per input, whose bounds are those of ``region``.
    """
    radius = radii(radius, centre.shape)
    u = x * (1 / radius) - centre / radius
    reach = np.maximum(np.abs(region.lower - centre), np.abs(region.upper - centre)) / radius
    upper = {"l1": reach, "l2": reach**2, "linf": reach.reshape(len(reach), -1).max(axis=1)}[norm]
    own_dims = dims if norm != "linf" else dims[:1]
    t = add_variables(model, DISTANCE_VARIABLE, 0.0, upper, coordinates(own_dims, upper.shape, samples))
    each = Affine.of(np.broadcast_to(t.labels.values.reshape(upper.shape + (1,) * (len(dims) - len(own_dims))), x.shape))
    p = 1 / np.sqrt(max(1, u.constant[0].size))
    for name, sign in zip(DISTANCE_ROWS, (1.0, -1.0), strict=True):
        slope, right = (2 * sign * p, -(p**2)) if norm == "l2" else (sign, 0.0)
        add_rows(model, name, each - u * slope, ">=", right, dims, samples)
    labels = torch.as_tensor(x.terms.indices.astype(np.int64))
    middle, width = (torch.tensor(np.broadcast_to(each, x.shape).reshape(-1)) for each in (centre, radius))

    def value(points: torch.Tensor) -> torch.Tensor:
        scaled = ((points[:, labels] - middle) / width).reshape(len(points), *x.shape)
        return scaled.abs().flatten(2).amax(2) if norm == "linf" else scaled.abs() if norm == "l1" else scaled**2

    return t, value


def add_ball(model: linopy.Model, t: linopy.Variable, samples: xr.DataArray) -> None:
    """Add the rows ``sum t <= 1``, one per sample, which keep the input within the radius."""
    labels = t.labels.values
    count = int(np.prod(labels.shape[1:]))
    total = Affine.of(labels).through(Csr(np.ones((1, count))), np.zeros((len(labels), 1)))
    add_rows(model, BALL_ROWS, total.reshape(len(labels)), "<=", 1.0, ("sample",), samples)
