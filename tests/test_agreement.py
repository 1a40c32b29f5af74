"""All formulations on both backends, with presolve and without it, find the optimum of thirty small programs.

What it is comes from elsewhere: wherever its units keep their states a network is affine, so on each such piece its largest value is a
linear program of scipy over what torch differentiates.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import mipnet as mn
from mipnet.block import RELAXED, formulations
from mipnet.engine import solve
from mipnet.ir import Array
from mipnet.layers.phase import LINKS
from tests.nets import SEEDS, make, sample

EXACT = [name for name in LINKS if name not in RELAXED]
PROGRAMS = [(family, seed, "max" if seed % 2 else "min") for family, seed in SEEDS if seed < 6]
PRESOLVE = {"highs": {"presolve": "off"}, "scip": {"presolving/maxrounds": 0}}


@pytest.mark.parametrize(("family", "seed", "sense"), PROGRAMS, ids=[f"{f.__name__}-{s}" for f, s, _ in PROGRAMS])
def test_all_formulations_agree(family, seed, sense):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.3 if len(network.input_shape) == 1 else 0.05)
    found = {}
    for name in EXACT:
        pool = name if name in formulations(mn.MaxPool2d) else "big-m"
        kinds = {"relu": name, "leakyrelu": name, "clip": name, "maxpool2d": pool}
        encoding = mn.encode(network, region, formulation=kinds)
        encoding.model.add_objective(encoding.output.isel({encoding.output.dims[-1]: 0}, drop=True).sum(), sense=sense)
        for backend, presolve in itertools.product(PRESOLVE, (True, False)):
            result = solve(encoding, backend, mip_gap=1e-7, options={} if presolve else PRESOLVE[backend])
            assert result.status is mn.Status.OPTIMAL
            assert result.verified
            found[name, backend, presolve] = result.objective
    assert max(found.values()) - min(found.values()) < 1e-5, found
    sign = 1.0 if sense == "max" else -1.0
    assert sign * found["big-m", "highs", True] == pytest.approx(best_of_pieces(network, region, sign, g), abs=1e-5)


def best_of_pieces(network: mn.Network, region: mn.Box, sign: float, g: np.random.Generator) -> float:
    """The largest ``sign * first output`` over the pieces of the best sampled points, and of points around what those pieces lead to."""
    points, best, seen = sample(region, 4000, g), -np.inf, set()
    spread = 1e-3 * (region.upper - region.lower)
    for _ in range(8):
        found, before = [], best
        for x, key in one_each(network, points, sign):
            if key not in seen:
                seen.add(key)
                found.append(largest(network, x, region, sign))
        best = max([best, *(value for value, _ in found)])
        if best <= before + 1e-9:
            break
        ends = np.array([end.reshape(network.input_shape) for _, end in sorted(found, key=lambda one: -one[0])[:4]])
        around = ends[:, None] + spread * g.uniform(-1, 1, (len(ends), 100, *network.input_shape))
        points = np.clip(around, region.lower, region.upper).reshape(-1, *network.input_shape)
    return best


def one_each(network: mn.Network, points: Array, sign: float) -> list[tuple[Array, bytes]]:
    """The best of the points on each piece, for the 60 pieces with the best ones."""
    known = all_states(network, torch.tensor(points)).numpy()
    order = np.argsort(-sign * known[:, -1])
    on = known[order, :-1] >= 0
    _, first = np.unique(on, axis=0, return_index=True)
    return [(points[order[i]], on[i].tobytes()) for i in sorted(first)[:60]]


def largest(network: mn.Network, x: Array, region: mn.Box, sign: float) -> tuple[float, Array]:
    """The largest value on the piece of ``x``, and where: states are affine there, and keep their signs."""
    flat = torch.tensor(x.reshape(-1))

    def there(z: torch.Tensor) -> torch.Tensor:
        return all_states(network, z.reshape(1, *network.input_shape))[0]

    slope, value = torch.func.jacrev(there)(flat).numpy(), there(flat).numpy()
    constant, signs = value - slope @ flat.numpy(), np.where(value[:-1] >= 0, 1.0, -1.0)
    box = np.stack([region.lower.reshape(-1), region.upper.reshape(-1)], axis=1)
    done = linprog(-sign * slope[-1], -signs[:, None] * slope[:-1], signs * constant[:-1], bounds=box)
    assert done.status == 0, done.message
    return sign * float(constant[-1]) - done.fun, done.x


def all_states(network: mn.Network, x: torch.Tensor) -> torch.Tensor:
    """For each point the states of all units, and the first output."""
    values = network.values(x)
    parts = [state for node in network.nodes for state in states(node.layer, values[node.inputs[0]])]
    return torch.cat([*(part.flatten(1) for part in parts), values[network.output.name].flatten(1)[:, :1]], dim=1)


def states(layer: mn.Layer, z: torch.Tensor) -> list[torch.Tensor]:
    """What decides by its sign how a layer acts on its input: a distance from each kink, or from one candidate to another."""
    if isinstance(layer, mn.MaxPool2d):
        places = torch.tensor(layer.window.places(tuple(z.shape[1:])))
        candidates, inside = z.flatten(2)[:, :, places], places >= 0
        pairs = itertools.combinations(range(places.shape[-1]), 2)
        return [(candidates[..., i] - candidates[..., j])[:, :, inside[:, i] & inside[:, j]] for i, j in pairs]
    kinks = {mn.ReLU: (0.0,), mn.LeakyReLU: (0.0,), mn.Clip: (getattr(layer, "low", 0.0), getattr(layer, "high", 0.0))}
    return [z - kink for kink in kinks.get(type(layer), ()) if np.isfinite(kink)]
