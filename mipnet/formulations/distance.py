"""The distance of a network's input from a point as variables of a model: sums and maxima exactly, squares by tangents.

Distances are in units of a radius r.  With ``u = (x - centre) / r``, the variables t are

* ``l1``: one for each input, ``t >= |u|``, and their sum is the distance;
* ``l2``: one for each input, ``t >= u^2``, and their sum is the squared distance.  Rows say ``t >= 2 p u - p^2`` at a few p, which holds
  more than the ball does, and `mipnet.solving.separators.Squares` adds those at the points that come: an outer approximation that is
  closed as far as a solve needs it.  One square at a time is closed by far fewer tangents than the norm as a whole (Vielma, Dunning,
  Huchette, Lubin, "Extended Formulations in Mixed Integer Conic Quadratic Programming", 2017);
* ``linf``: one for each sample, at least every ``|u|``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import linopy
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables, coordinates
from mipnet.network.sets import Box

Norm = Literal["linf", "l1", "l2"]

DISTANCE_VARIABLE = "distance"


@dataclass(frozen=True, eq=False)
class Square:
    """``t >= ((x - centre) / radius)^2`` for variables x and t by label, all of shape ``(inputs of all samples,)``."""

    x: NDArray[np.int64]
    t: NDArray[np.int64]
    centre: Array
    radius: float


def add_distance(
    model: linopy.Model, x: Affine, region: Box, centre: Array, radius: float, norm: Norm, dims: tuple[str, ...], samples: xr.DataArray
) -> tuple[linopy.Variable, Callable[[torch.Tensor], torch.Tensor]]:
    """Variables called ``distance`` as the module says, and what they are as a function of points ``(n, label)``.

    ``x`` has a variable of its own for each input, whose bounds are those of ``region``.
    """
    u = x * (1 / radius) - centre / radius
    reach = np.maximum(np.abs(region.lower - centre), np.abs(region.upper - centre)) / radius
    most = {"l1": reach, "l2": reach**2, "linf": reach.reshape(len(reach), -1).max(axis=1)}[norm]
    own = dims if norm != "linf" else dims[:1]
    t = add_variables(model, DISTANCE_VARIABLE, 0.0, most, coordinates(own, most.shape, samples))
    each = Affine.of(np.broadcast_to(t.labels.values.reshape(most.shape + (1,) * (len(dims) - len(own))), x.shape))
    p = 1 / np.sqrt(max(1, u.constant[0].size))
    for side, sign in (("above", 1.0), ("below", -1.0)):
        steep, right = (2 * sign * p, -(p**2)) if norm == "l2" else (sign, 0.0)
        add_rows(model, f"{DISTANCE_VARIABLE}_{side}", each - u * steep, ">=", right, dims, samples)
    labels = torch.as_tensor(x.terms.indices.astype(np.int64))
    middle = torch.tensor(np.broadcast_to(centre, x.shape).reshape(-1))

    def value(points: torch.Tensor) -> torch.Tensor:
        away = ((points[:, labels] - middle) / radius).reshape(len(points), *x.shape)
        return away.abs().flatten(2).amax(2) if norm == "linf" else away.abs() if norm == "l1" else away**2

    return t, value


def add_ball(model: linopy.Model, t: linopy.Variable, samples: xr.DataArray) -> None:
    """Rows that keep the sum of the variables `distance` of each sample at 1 or less: the input in its ball of that radius."""
    labels = t.labels.values
    count = int(np.prod(labels.shape[1:]))
    total = Affine.of(labels).through(Csr(np.ones((1, count))), np.zeros((len(labels), 1)))
    add_rows(model, f"{DISTANCE_VARIABLE}_within", total.reshape(len(labels)), "<=", 1.0, ("sample",), samples)
