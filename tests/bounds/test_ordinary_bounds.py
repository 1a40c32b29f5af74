"""Bounds of ordinary networks, by every method, hold what the networks compute at random points and corners; their maps stay sparse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.formulations.registry import is_affine, linear_map
from tests.nets import sample
from tests.readers.ordinary_networks import ORDINARY, build, mod, u_net
from tests.sweep import marked

TOGETHER = ("dueling", "maxout")


@pytest.mark.parametrize("name", [name if name in TOGETHER else marked(name) for name in ORDINARY])
def test_bounds_hold_every_value(name: str) -> None:
    module, shape = build(name)
    network, g = mn.from_torch(module, torch.zeros(1, *shape)), np.random.default_rng(0)
    region = mn.LInf(g.uniform(-1, 1, (1, *shape)), 0.05)
    values = network.values(torch.tensor(sample(region, 600, g)))
    for method in ("interval", "crown", "alpha"):
        bounds = mn.propagate(network, region, method=method)
        for node in network.nodes:
            box, value = bounds.after[node.name], values[node.name]
            assert bool((value >= box.lower - 1e-9).all()), (method, node.name)
            assert bool((value <= box.upper + 1e-9).all()), (method, node.name)


def test_a_u_net_needs_no_dense_matrix() -> None:
    """Of 32 x 32 pixels: as dense matrices its maps would have 3e8 entries and more."""
    torch.manual_seed(0)
    up = mod(torch.nn.Upsample, scale_factor=2, mode="bilinear")
    network = mn.from_torch(u_net(up)().eval(), torch.zeros(1, 2, 32, 32))
    entries = 0
    for node in network.nodes:
        if is_affine(node.layer):
            entries += sum(matrix.nnz for matrix in linear_map(node.layer, *(network.shape_of(source) for source in node.inputs)))
    assert entries < 1_000_000
