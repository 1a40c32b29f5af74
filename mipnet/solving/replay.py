"""Replay: what a solver's point means, computed again by the network itself."""

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
from mipnet.network.graph import INPUT


def labelled(model: linopy.Model, point: Array) -> xr.Dataset:
    """A point by label as a Dataset with one array a variable; NaN where a variable is masked."""
    values = {}
    for name, variable in model.variables.items():
        labels = variable.labels
        data = np.where(labels.values >= 0, point[labels.values], np.nan)
        values[name] = xr.DataArray(data, dims=labels.dims, coords=labels.coords)
    return xr.Dataset(values)


def replay(encoding: Encoding, program: Program, x: Array, *, compare: bool = True) -> tuple[Array, float]:
    """The point recomputed by a forward pass of the network, and its largest distance from the solver's.

    Input and scores are read off ``x`` (moved into their set, binary scores rounded), every variable that the encoding owns
    is computed again from them, and the others keep the solver's values.  With ``compare`` the network itself runs in torch, in
    float64 with its gates acting as `mipnet.network.gates.gated_value` says, and the distance is the largest ``|a - b| / (1 + |b|)`` over
    all nodes; without, it is 0.
    """
    point = np.full(encoding.model._xCounter, np.nan)
    point[program.labels] = x
    given = encoding.region.nearest(encoding.value(INPUT, point))
    scores = {gate.name: _score(encoding, gate.name, point) for gate in encoding.gates}
    recomputed = encoding.point(given, scores)
    merged = np.where(np.isnan(recomputed), point, recomputed)
    return merged[program.labels], _distance(encoding, point, given, scores) if compare else 0.0


def _score(encoding: Encoding, gate: str, point: Array) -> Array:
    variable = encoding.scores[gate]
    score: Array = np.clip(point[variable.labels.values], 0.0, 1.0)
    return np.round(score) if variable.attrs["binary"] else score


def _distance(encoding: Encoding, point: Array, given: Array, scores: Mapping[str, Array]) -> float:
    with torch.no_grad():
        values = encoding.network.values(torch.tensor(given), after=gate_actions(encoding, scores))
    error = 0.0
    for name in encoding.blocks:
        truth = values[name].numpy()
        error = max(error, float((np.abs(encoding.value(name, point) - truth) / (1 + np.abs(truth))).max(initial=0.0)))
    return error


def gate_actions(encoding: Encoding, scores: Mapping[str, Array]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """For each gate site what the gate does to the value there, given the scores; for `Network.values`."""
    actions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    for gate in encoding.gates:
        for site in gate.sites:
            actions[site] = partial(gated_value, tops=encoding.blocks[site].tops, score=torch.tensor(scores[gate.name]))
    return actions
