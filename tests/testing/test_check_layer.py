"""`check_layer` passes for every layer of mipnet, and fails for a layer with wrong rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import sparse

import mipnet as mn
from mipnet.bounds.linear_rules import Lines, affine
from mipnet.network.graph import Layer
from mipnet.testing import check_layer
from tests.nets import conv, dense, norm
from tests.sweep import sweep

G = np.random.default_rng(0)
CASES = {
    "dense": (dense(G, 3, 4), (4,)),
    "conv": (conv(G, 2, 2, (2, 3), groups=2, stride=(1, 2), padding=(1, 0, 0, 2), dilation=(2, 1)), (2, 4, 5)),
    "batch norm": (norm(G, 3), (3, 2, 2)),
    "scale": (mn.Scale(G.normal(size=(3, 1, 1)), 0.5), (3, 2, 2)),
    "scale up": (mn.Scale(G.normal(size=(3, 4)), 0.5), (4,)),
    "relu": (mn.ReLU(), (3,)),
    "leaky": (mn.LeakyReLU(0.1), (3,)),
    "steep": (mn.LeakyReLU(1.7), (3,)),
    "clip": (mn.Clip(-0.5, 1.0), (4,)),
    "floor": (mn.Clip(low=-0.5), (4,)),
    "roof": (mn.Clip(high=0.5), (4,)),
    "max pool": (mn.MaxPool2d(mn.Window((2, 2), (1, 1), (1, 1, 0, 0))), (2, 3, 3)),
    "ceil pool": (mn.MaxPool2d(mn.Window((2, 2), (2, 2), ceil=True)), (1, 3, 3)),
    "dilated pool": (mn.MaxPool2d(mn.Window((2, 2), (1, 1), dilation=(2, 1))), (1, 4, 3)),
    "average pool": (mn.AvgPool2d(mn.Window((2, 3), (1, 2), (1, 1, 1, 1))), (2, 3, 4)),
    "average without padding": (mn.AvgPool2d(mn.Window((2, 2), (2, 2), (1, 1, 1, 1), ceil=True), count_padding=False), (1, 3, 3)),
    "adaptive": (mn.AdaptiveAvgPool2d((2, 3)), (2, 5, 4)),
    "reshape": (mn.Reshape((2, 6)), (3, 4)),
    "permute": (mn.Permute((2, 0, 1)), (2, 3, 4)),
    "add": (mn.Add((1.0, -2.0)), (3,), (3,)),
    "absolute": (mn.PReLU(-1.0), (3,)),
    "slopes": (mn.PReLU(np.array([0.2, -0.5, 1.4])), (2, 3)),
    "maximum": (mn.Maximum(np.array([[0, 3, 1], [4, 2, -1]])), (5,)),
    "axis": (mn.AxisDense(G.normal(size=(3, 4)), G.normal(size=3), 0), (4, 2)),
    "gather": (mn.Gather(np.array([[3, -1], [0, 3]]), 0.5), (4,)),
    "sparse": (mn.SparseMap.of(sparse.random_array((4, 6), density=0.4, rng=G, format="csr"), G.normal(size=(2, 2))), (2, 3)),
    "volume": (mn.Conv3d(G.normal(size=(2, 1, 2, 1, 2)), padding=((1, 0), (0, 0), (0, 1)), stride=(1, 2, 1)), (1, 2, 3, 2)),
    "transposed": (mn.ConvTranspose2d(G.normal(size=(2, 1, 2, 3)), G.normal(size=1), (2, 1), (1, -1, 0, 0)), (2, 2, 2)),
    "concat": (mn.Concat(-1), (2, 3), (2, 1)),
}


@pytest.mark.parametrize(("name", "backend"), sweep([(name, backend) for name in CASES for backend in ("highs", "scip")], every=3))
def test_every_layer_passes(name, backend):
    layer, *shapes = CASES[name]
    check_layer(layer, *shapes, backend=backend)


@dataclass(frozen=True, eq=False)
class Half(Layer):
    """``y = x / 2`` with rules that each test breaks."""

    def shape(self, *inputs):
        return inputs[0]

    def forward(self, *inputs):
        return inputs[0] / 2


def test_a_wrong_interval_rule_is_caught():
    @dataclass(frozen=True, eq=False)
    class Narrow(Half):
        pass

    mn.interval.register(Narrow)(lambda layer, x: mn.Interval(x.lower / 3, x.upper / 3))
    mn.linear_map.register(Narrow)(lambda layer, shape: (mn.linear_map(mn.Scale(0.5, 0.0), shape)[0],))
    with pytest.raises(AssertionError, match="interval rule of `Narrow` contains every output"):
        check_layer(Narrow(), (3,))


def test_a_wrong_backward_rule_is_caught():
    @dataclass(frozen=True, eq=False)
    class Leaning(Half):
        pass

    mn.interval.register(Leaning)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))
    mn.linear_map.register(Leaning)(lambda layer, shape: (mn.linear_map(mn.Scale(0.5, 0.0), shape)[0],))
    mn.backward.register(Leaning)(lambda layer, rows, x: ((rows * 0.51,), rows.new_zeros(len(rows))))
    with pytest.raises(AssertionError, match="the backward rule of `Leaning` bounds every output from below"):
        check_layer(Leaning(), (3,))


def test_an_affine_rule_that_is_not_exact_is_caught():
    @dataclass(frozen=True, eq=False)
    class Careful(Half):
        pass

    mn.interval.register(Careful)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))
    mn.linear_map.register(Careful)(lambda layer, shape: (mn.linear_map(mn.Scale(0.5, 0.0), shape)[0],))
    mn.backward.register(Careful)(affine(lambda layer, rows, x: ((rows * 0.5,), rows.new_full((len(rows),), -0.1))))
    with pytest.raises(AssertionError, match="marked as exact, and its bound is attained"):
        check_layer(Careful(), (3,))


def test_lines_that_cross_the_layer_are_caught():
    @dataclass(frozen=True, eq=False)
    class Crossed(Half):
        pass

    mn.interval.register(Crossed)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))
    mn.linear_map.register(Crossed)(lambda layer, shape: (mn.linear_map(mn.Scale(0.5, 0.0), shape)[0],))

    @mn.lines.register(Crossed)
    def _(layer, x, choice=None):
        half = torch.full_like(x.lower, 0.5)
        return Lines(half, half * 0, half, half * 0 if choice is None else -choice)

    with pytest.raises(AssertionError, match="the lines of `Crossed` enclose it at every choice"):
        check_layer(Crossed(), (3,))


def test_a_wrong_linear_map_is_caught():
    @dataclass(frozen=True, eq=False)
    class Skewed(Half):
        pass

    mn.interval.register(Skewed)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))
    mn.linear_map.register(Skewed)(lambda layer, shape: (mn.linear_map(mn.Scale(0.51, 0.0), shape)[0],))
    with pytest.raises(AssertionError, match="`linear_map` of `Skewed`"):
        check_layer(Skewed(), (3,))


def test_an_encoding_that_cuts_off_the_truth_is_caught():
    @dataclass(frozen=True, eq=False)
    class Tight(Half):
        pass

    mn.interval.register(Tight)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))

    @mn.encoding(Tight, "tight")
    def _(layer, block, x):
        y = block.variable("", -0.1, 0.1, value=lambda point: x.evaluate(point) / 2)
        block.rows("half", y - x * 0.5, "=")
        return y

    with pytest.raises(AssertionError, match="a forward pass satisfies every row of `Tight`"):
        check_layer(Tight(), (3,))


def test_a_layer_without_rules_is_refused_with_the_line_that_adds_one():
    @dataclass(frozen=True, eq=False)
    class Bare(Half):
        pass

    with pytest.raises(AssertionError, match=r"`Bare` has a rule in `linear_map` or at least one encoding"):
        check_layer(Bare(), (3,))
    network = mn.Network.build((3,), [("half", Bare())])
    with pytest.raises(mn.MipnetError, match=r"no interval rule for layer `Bare`; register one with `@mipnet.interval.register\(Bare\)`"):
        mn.encode(network, mn.Box(np.zeros((1, 3)), np.ones((1, 3))))
    mn.interval.register(Bare)(lambda layer, x: mn.Interval(x.lower / 2, x.upper / 2))
    with pytest.raises(
        mn.MipnetError, match=r"no encoding for layer `Bare` of node `half`; register one with `@mipnet.encoding\(Bare, name\)`"
    ):
        mn.encode(network, mn.Box(np.zeros((1, 3)), np.ones((1, 3))))
