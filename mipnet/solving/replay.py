"""Replay: a solution is computed again by a forward pass of the network, and `verified` if the two agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import linopy
import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array
from mipnet.backend import Program
from mipnet.model.encoding import Encoding
from mipnet.network.gates import gated_value
from mipnet.network.graph import INPUT_NODE

REPLAY_TOLERANCE = 1e-5
"""Largest difference of a replay for which `Result.verified` is True, relative to the size of the node or constraint."""


SIDE_TOLERANCE = 5e-6
"""Largest distance by which a replay moves an input to the other side of a tree's threshold, relative to it or to 1 if that is larger."""


def labelled(model: linopy.Model, point: Array) -> xr.Dataset:
    """Return a point by label as a Dataset with one array per variable; NaN where a variable is masked."""
    values = {}
    for name, variable in model.variables.items():
        labels = variable.labels
        data = np.where(labels.values >= 0, point[labels.values], np.nan)
        values[name] = xr.DataArray(data, dims=labels.dims, coords=labels.coords)
    return xr.Dataset(values)


def replay(encoding: Encoding, program: Program, x: Array, *, compare: bool = True) -> tuple[Array, float]:
    """Return a point recomputed by a forward pass of the network, and its largest difference from the solution ``x`` of a solver.

    The input and the scores are those of ``x``, moved into their sets and to the chosen side of trees' thresholds; binary scores are
    rounded.  Every variable of the encoding is recomputed from them, and the others keep their values.  With ``compare``, the network also
    runs in torch, in float64, with gated values by `mipnet.network.gates.gated_value`.  The difference is then the largest
    ``|a - b| / (s + |b|)`` over all nodes, with a from ``x``,
    b from torch, and s the largest absolute bound of the node; otherwise, it is 0.
    """
    point = np.full(encoding.model._xCounter, np.nan)
    point[program.labels] = x
    given = encoding.region.nearest(_on_chosen_side(encoding, point, encoding.value(INPUT_NODE, point)))
    scores = {gate.name: _score(encoding, gate.name, point) for gate in encoding.gates}
    recomputed = encoding.point(given, scores)
    merged = np.where(np.isnan(recomputed), point, recomputed)
    return merged[program.labels], _difference(encoding, point, given, scores) if compare else 0.0


def _on_chosen_side(encoding: Encoding, point: Array, given: Array) -> Array:
    """Return an input moved to the side of each tree threshold that the binaries at the point say, where a solver's tolerance is between.

    For x just above t and the binary of ``x <= t``, x becomes t: any other function of x changes little, and that of the trees jumps.
    """
    for block in encoding.blocks.values():
        cuts = block.notes.cuts
        if cuts is None or block.node.inputs != (INPUT_NODE,):
            continue
        present = cuts.labels >= 0
        sample, threshold = np.nonzero(present)
        at_most = point[cuts.labels[present]] > 0.5
        lower, upper = np.full(given.shape, -np.inf), np.full(given.shape, np.inf)
        where, value = (sample, cuts.feature[threshold]), cuts.value[threshold]
        np.minimum.at(upper, tuple(each[at_most] for each in where), value[at_most])
        np.maximum.at(lower, tuple(each[~at_most] for each in where), np.nextafter(value[~at_most], np.inf))
        moved = np.where(lower <= upper, np.clip(given, lower, upper), given)
        given = np.where(np.abs(moved - given) <= SIDE_TOLERANCE * np.maximum(1.0, np.abs(given)), moved, given)
    return given


def _score(encoding: Encoding, gate: str, point: Array) -> Array:
    """Return the scores of a gate at a point, clipped to [0, 1], and rounded if they are binary."""
    variable = encoding.scores[gate]
    score: Array = np.clip(point[variable.labels.values], 0.0, 1.0)
    return np.round(score) if variable.attrs["binary"] else score


def _difference(encoding: Encoding, point: Array, given: Array, scores: Mapping[str, Array]) -> float:
    """Return the largest relative difference between the values of all nodes at a point and those of the network in torch."""
    with torch.no_grad():
        values = encoding.network.values(torch.tensor(given), after=gate_actions(encoding, scores))
    error = 0.0
    for name in encoding.blocks:
        exact = values[name].numpy()
        size = encoding.node_sizes[name] + np.abs(exact)
        error = max(error, float((np.abs(encoding.value(name, point) - exact) / size).max(initial=0.0)))
    return error


def gate_actions(encoding: Encoding, scores: Mapping[str, Array]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return, per gate site, a function from the value at the site to the gated value, as `Network.values` takes them."""
    actions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    for gate in encoding.gates:
        for site in gate.sites:
            thresholds = encoding.blocks[site].notes.gate_thresholds
            actions[site] = partial(gated_value, thresholds=thresholds, score=torch.tensor(scores[gate.name]))
    return actions
