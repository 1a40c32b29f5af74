"""A replay moves an input to the chosen side of a threshold of trees, and no further; differences are relative to the size of the node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.arrays import Array
from mipnet.layers import Dense, ReLU, TreeEnsemble
from mipnet.model.to_program import from_model
from mipnet.solving.replay import replay


def steps(*thresholds: float) -> mn.Network:
    """The sum of one tree per threshold: each adds 1 for inputs above its threshold."""
    splits = torch.tensor([[0, 1, 2], [-1, 1, 1], [-1, 2, 2]])
    every = [splits.clone() for _ in thresholds]
    for number, tree in enumerate(every):
        tree[:, 1:] += 3 * number
    ends = torch.tensor([each for t in thresholds for each in (t, 0.0, 0.0)], dtype=torch.float64)
    values = torch.tensor([[0.0], [0.0], [1.0]]).repeat(len(thresholds), 1)
    trees = TreeEnsemble(torch.cat(every), ends, values, torch.arange(0, 3 * len(thresholds), 3), torch.zeros(1))
    return mn.Network.build((1,), [("trees", trees)])


def replayed(network: mn.Network, variables: Array, input_value: float) -> float:
    """The input after a replay of a point whose binaries are those of an input, and whose own input is another one."""
    encoding = mn.encode(network, mn.Box([[0.0]], [[1e4]]))
    program, point = from_model(encoding.model), encoding.point(variables)
    point[encoding.model.variables["input"].labels.values.item()] = input_value
    found = np.full(len(point), np.nan)
    found[program.labels] = replay(encoding, program, point[program.labels])[0]
    return float(encoding.value("input", found).item())


@pytest.mark.parametrize(
    ("threshold", "chosen", "given", "expected"),
    [
        (3.0, 3.0, 3.0 + 1e-6, 3.0),
        (3000.0, 3000.0, 3000.01, 3000.0),
        (3000.0, 3000.0, 3000.1, 3000.1),
        (3.0, 2.0, 3.0 - 1e-6, 3.0 - 1e-6),
        (3.0, 4.0, 3.0 + 1e-6, 3.0 + 1e-6),
        (3.0, 4.0, 3.0 - 1e-6, float(np.nextafter(3.0, 4.0))),
    ],
    ids=["beyond", "in the unit of the input", "too far", "below its end", "above its end", "beyond from above"],
)
def test_an_input_is_moved_to_its_side_and_no_further(threshold: float, chosen: float, given: float, expected: float) -> None:
    assert replayed(steps(threshold), np.array([[chosen]]), given) == expected


def test_an_input_whose_sides_exclude_each_other_stays() -> None:
    network = steps(3.0, 3.0 + 1e-6)
    encoding = mn.encode(network, mn.Box([[0.0]], [[1e4]]))
    program, point, given = from_model(encoding.model), encoding.point(np.array([[3.0]])), 3.0 + 5e-7
    cuts = encoding.blocks["trees"].notes.cuts
    assert cuts is not None
    upper = cuts.labels[0][cuts.value == 3.0 + 1e-6].item()
    assert point[upper] == 1
    point[upper] = 0  # x <= 3 and x > 3.000001
    point[encoding.model.variables["input"].labels.values.item()] = given
    found = np.full(len(point), np.nan)
    found[program.labels] = replay(encoding, program, point[program.labels])[0]
    assert encoding.value("input", found).item() == given


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_the_difference_is_measured_in_the_size_of_the_node(size: float) -> None:
    layers = [("dense", Dense(torch.tensor([[size]], dtype=torch.float64), None)), ("relu", ReLU())]
    encoding = mn.encode(mn.Network.build((1,), layers), mn.Box([[-1.0]], [[1.0]]))
    program, point = from_model(encoding.model), encoding.point(np.array([[0.5]]))
    point[int(encoding.value("relu", np.arange(len(point), dtype=float)).item())] += 0.03 * size
    difference = replay(encoding, program, point[program.labels])[1]
    assert encoding.node_sizes["relu"] == pytest.approx(size)
    assert difference == pytest.approx(0.03 / 1.5)
