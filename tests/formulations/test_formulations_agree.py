"""All formulations on both backends, with presolve and without it, find the optimum of 46 small programs, four of them gated.

What it is comes from elsewhere: wherever its units keep their states a network is affine, so on each such piece its largest value is a
linear program of scipy over what torch differentiates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import mipnet as mn
from mipnet.arrays import Array
from mipnet.formulations.registry import formulations
from mipnet.formulations.relu import POSITIVE_PART
from mipnet.solving.engine import solve
from tests.nets import SEEDS, dense, make, sample
from tests.sweep import sweep

EXACT = [name for name, each in POSITIVE_PART.formulations.items() if not each.relaxed]
PROGRAMS = [(family, seed, "max" if seed % 2 else "min") for family, seed in SEEDS if seed < 6]
PRESOLVE = {"highs": {"presolve": "off"}, "scip": {"presolving/maxrounds": 0}}


@pytest.mark.parametrize(("family", "seed", "sense"), sweep(PROGRAMS, every=9), ids=[f"{f.__name__}-{s}" for f, s, _ in PROGRAMS])
def test_all_formulations_agree(family, seed, sense):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.25 if len(network.input_shape) == 1 else 0.04)

    def pose(name: str) -> mn.Encoding:
        pool = name if name in formulations(mn.MaxPool2d) else "big-m"
        kinds = {"relu": name, "leakyrelu": name, "prelu": name, "clip": name, "maxpool2d": pool, "maximum": pool}
        encoding = mn.encode(network, region, formulation=kinds)
        encoding.model.add_objective(first_output(encoding), sense=sense)
        return encoding

    def objective(flat: torch.Tensor) -> torch.Tensor:
        return all_states(network, flat.reshape(-1, *network.input_shape), 1.0 if sense == "max" else -1.0)

    best = best_of_pieces(objective, sample(region, 4000, g).reshape(4000, -1), region.lower.reshape(-1), region.upper.reshape(-1), g)
    assert agreed(pose) == pytest.approx(best if sense == "max" else -best, abs=1e-5)


@pytest.mark.parametrize("seed", sweep(range(4), every=4))
def test_gated_formulations_agree(seed):
    """Two images, one score for each of seven units, and a price per unit that is kept; the first layer is linear in its scores."""
    g = np.random.default_rng(seed)
    fc1, fc2, fc3 = dense(g, 4, 3), dense(g, 3, 4), dense(g, 1, 3)
    layers = [("fc1", fc1), ("relu1", mn.ReLU()), ("fc2", fc2), ("relu2", mn.ReLU()), ("fc3", fc3)]
    network, x = mn.Network.build((3,), layers), g.uniform(0, 1, (2, 3))
    weights, price = g.normal(size=2), 0.05

    def pose(name: str) -> mn.Encoding:
        encoding = mn.encode(network, mn.Samples(x), gates="all", formulation={"relu": name})
        y = encoding.output.isel({encoding.output.dims[-1]: 0}, drop=True)
        scores = sum(each.sum() for each in encoding.scores.values())
        encoding.model.add_objective((y * weights).sum() - price * scores, sense="max")
        return encoding

    tops = [torch.tensor(pose("big-m").block(name).notes.gate_thresholds["above"]) for name in ("relu1", "relu2")]

    def objective(s: torch.Tensor) -> torch.Tensor:
        """Return the gated value by its formula."""
        h, parts = torch.tensor(x).expand(len(s), 2, 3), []
        for layer, top, score in zip((fc1, fc2), tops, s.split((4, 3), dim=1), strict=True):
            parts.append(layer.forward(h.flatten(0, 1)).reshape(len(s), 2, -1) - (1 - score[:, None]) * top)
            h = torch.relu(parts[-1])
        y = fc3.forward(h.flatten(0, 1)).reshape(len(s), 2) @ torch.tensor(weights) - price * s.sum(dim=1)
        return torch.cat([*(part.flatten(1) for part in parts), y[:, None]], dim=1)

    corners = np.array(list(itertools.product((0.0, 1.0), repeat=7)))
    points = np.concatenate([corners, g.uniform(size=(4000, 7))])
    assert agreed(pose) == pytest.approx(best_of_pieces(objective, points, np.zeros(7), np.ones(7), g), abs=1e-5)


def first_output(encoding: mn.Encoding):
    return encoding.output.isel({encoding.output.dims[-1]: 0}, drop=True).sum()


def agreed(pose: Callable[[str], mn.Encoding]) -> float:
    """The optimum that all formulations have on both backends, with presolve and without."""
    found = {}
    for name in EXACT:
        encoding = pose(name)
        for backend, presolve in itertools.product(PRESOLVE, (True, False)):
            result = solve(encoding, backend, mip_gap=1e-7, options={} if presolve else PRESOLVE[backend])
            assert result.status is mn.Status.OPTIMAL
            assert result.verified
            found[name, backend, presolve] = result.objective
    assert max(found.values()) - min(found.values()) < 1e-5, found
    return found["big-m", "highs", True]


Known = Callable[[torch.Tensor], torch.Tensor]
"""Takes points, one per row; returns the states of all units, and the objective last: affine where no state changes its sign."""


def best_of_pieces(known: Known, points: Array, lower: Array, upper: Array, g: np.random.Generator) -> float:
    """The largest objective over the linear pieces of the best points, and of points near the ends of the best of those pieces."""
    best, seen = -np.inf, set()
    for _ in range(8):
        found, before = [], best
        for x, key in one_each(known, points):
            if key not in seen:
                seen.add(key)
                found.append(largest(known, x, np.stack([lower, upper], axis=1)))
        best = max([best, *(value for value, _ in found)])
        if best <= before + 1e-9:
            break
        ends = np.array([end for _, end in sorted(found, key=lambda one: -one[0])[:4]])
        around = ends[:, None] + 1e-3 * (upper - lower) * g.uniform(-1, 1, (len(ends), 100, len(lower)))
        points = np.clip(around, lower, upper).reshape(-1, len(lower))
    return best


def one_each(known: Known, points: Array) -> list[tuple[Array, bytes]]:
    """The best of the points on each piece, for the 60 pieces with the best ones."""
    values = known(torch.tensor(points)).numpy()
    order = np.argsort(-values[:, -1])
    on = values[order, :-1] >= 0
    _, first = np.unique(on, axis=0, return_index=True)
    return [(points[order[i]], on[i].tobytes()) for i in sorted(first)[:60]]


def largest(known: Known, x: Array, box: Array) -> tuple[float, Array]:
    """The largest objective on the piece of ``x``, and where: states are affine there, and keep their signs."""
    flat = torch.tensor(x)
    slope, value = torch.func.jacrev(lambda z: known(z[None])[0])(flat).numpy(), known(flat[None])[0].numpy()
    constant, signs = value - slope @ x, np.where(value[:-1] >= 0, 1.0, -1.0)
    done = linprog(-slope[-1], -signs[:, None] * slope[:-1], signs * constant[:-1], bounds=box)
    assert done.status == 0, done.message
    return float(constant[-1]) - done.fun, done.x


def all_states(network: mn.Network, x: torch.Tensor, sign: float) -> torch.Tensor:
    """For each point the states of all units, and ``sign`` times the first output."""
    values = network.values(x)
    parts = [state for node in network.nodes for state in states(node.layer, values[node.inputs[0]])]
    return torch.cat([*(part.flatten(1) for part in parts), sign * values[network.output.name].flatten(1)[:, :1]], dim=1)


def states(layer: mn.Layer, z: torch.Tensor) -> list[torch.Tensor]:
    """The values whose signs decide the linear piece of a layer: the distance from each kink, or between two candidates."""
    if isinstance(layer, mn.MaxPool2d | mn.Maximum):
        maximum = isinstance(layer, mn.Maximum)
        places = layer.places.flatten(0, -2)[None] if maximum else torch.tensor(layer.candidates(tuple(z.shape[1:])))
        candidates, inside = z.flatten(1)[:, places], places >= 0
        pairs = itertools.combinations(range(places.shape[-1]), 2)
        return [(candidates[..., i] - candidates[..., j])[:, inside[..., i] & inside[..., j]] for i, j in pairs]
    kinks = {mn.ReLU: (0.0,), mn.LeakyReLU: (0.0,), mn.PReLU: (0.0,), mn.Clip: (getattr(layer, "low", 0.0), getattr(layer, "high", 0.0))}
    return [z - kink for kink in kinks.get(type(layer), ()) if np.isfinite(kink)]
