"""CROWN against a slow reference of dense matrices, where it has to be exact, and rule by rule for every layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import mipnet as mn
from mipnet.bounds.interval import Interval
from mipnet.bounds.linear_rules import AFFINE_RULES, backward, clip_lines, gate_lines, has_backward
from mipnet.errors import UnsupportedError
from mipnet.network.graph import Layer
from tests.layers.test_layers import CASES, rand
from tests.nets import conv, dense, norm
from tests.one_input import one_input_network, values_at_kinks


def relu_net(g, sizes=(4, 6, 5, 6, 3)):
    layers = []
    for k, (a, b) in enumerate(pairwise(sizes), 1):
        layers += [(f"fc{k}", dense(g, b, a)), (f"act{k}", mn.ReLU())]
    return mn.Network.build(sizes[:1], layers[:-1])


def reference(network, lower, upper, *, gated=False):
    """CROWN as in the paper (Zhang et al. 2018, theorem 3.2): one unit, one bound and one layer at a time, with full matrices.

    With gates, a ReLU of a hidden layer lies between 0 and its chord, whatever its sign.
    """
    weights = [(n.layer.weight.numpy(), n.layer.bias.numpy()) for n in network.nodes if isinstance(n.layer, mn.Dense)]
    found = []
    for depth in range(len(weights)):
        ends = np.empty((len(weights[depth][1]), 2))
        for unit in range(len(ends)):
            for sign, column in ((1.0, 0), (-1.0, 1)):
                row, total = sign * weights[depth][0][unit], sign * weights[depth][1][unit]
                for earlier in reversed(range(depth)):
                    low, high = found[earlier].T
                    new = np.zeros_like(row)
                    for i, c in enumerate(row):
                        below = 0.0 if gated or high[i] <= 0 else 1.0 if low[i] >= 0 else float(high[i] >= -low[i])
                        slope = 0.0 if high[i] <= 0 else 1.0 if low[i] >= 0 else high[i] / (high[i] - low[i])
                        new[i] = c * (below if c >= 0 else slope)
                        total += 0.0 if c >= 0 or low[i] >= 0 or high[i] <= 0 else -c * slope * low[i]
                    total += new @ weights[earlier][1]
                    row = new @ weights[earlier][0]
                value = total + np.minimum(row * lower, row * upper).sum()
                ends[unit, column] = sign * value
        boxes = interval_ends(weights, depth, found, lower, upper, gated)
        open_ = (boxes[1] > 0) & ((boxes[0] < 0) | gated) | (depth == len(weights) - 1)  # a unit that is decided stays as it is
        low, high = np.where(open_, np.maximum(ends[:, 0], boxes[0]), boxes[0]), np.where(open_, np.minimum(ends[:, 1], boxes[1]), boxes[1])
        found.append(np.stack([low, high], axis=1))
    return found


def interval_ends(weights, depth, found, lower, upper, gated):
    low, high = (lower, upper) if depth == 0 else (np.maximum(found[depth - 1].T, 0) * [[0 if gated else 1], [1]])
    w, b = weights[depth]
    return np.clip(w, 0, None) @ low + np.clip(w, None, 0) @ high + b, np.clip(w, 0, None) @ high + np.clip(w, None, 0) @ low + b


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_reference_on_dense_networks(seed, gated):
    g = np.random.default_rng(seed)
    network = relu_net(g)
    centre, radius = g.normal(size=4), g.uniform(0, 0.8)
    region = mn.LInf(centre[None], radius)
    bounds = mn.propagate(network, region, mn.find_gates(network) if gated else (), method="crown")
    for k, ends in enumerate(reference(network, centre - radius, centre + radius, gated=gated), 1):
        np.testing.assert_allclose(bounds[f"fc{k}"].lower.values[0], ends[:, 0], atol=1e-9)
        np.testing.assert_allclose(bounds[f"fc{k}"].upper.values[0], ends[:, 1], atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_one_layer_is_exact(seed):
    """Affine layers before a single activation: the bounds of its inputs with either sign are exact, and so are those of its output."""
    g = np.random.default_rng(seed)
    network = mn.Network.build((3,), [("fc1", dense(g, 5, 3)), ("bn", norm(g, 5)), ("fc2", dense(g, 9, 5)), ("act", mn.ReLU())])
    region = mn.LInf(np.zeros((1, 3)), 0.7)
    loose = mn.propagate(network, region, method="interval")["fc2"]
    check_affine(network, region, "fc2", ((loose.lower < 0) & (loose.upper > 0)).values.reshape(-1))
    bounds = mn.propagate(network, region, method="crown")
    np.testing.assert_allclose(bounds["act"].lower, np.maximum(bounds["fc2"].lower, 0), atol=1e-12)
    np.testing.assert_allclose(bounds["act"].upper, np.maximum(bounds["fc2"].upper, 0), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_affine_networks_are_exact(seed):
    g = np.random.default_rng(seed)
    first = conv(g, 4, 2, (2, 3), groups=2, stride=(2, 2), padding=(0, 1, 2, 0), dilation=(1, 2))
    nodes = [
        ("conv", first),
        ("bn", norm(g, 4)),
        ("avg", mn.AvgPool2d(mn.Window((2, 2), (1, 2), (1, 0, 1, 0), ceil=True), count_padding=False), ("bn",)),
        ("wide", mn.AdaptiveAvgPool2d((3, 4)), ("avg",)),
        ("same", mn.AdaptiveAvgPool2d((3, 4)), ("bn",)),
        ("gap", mn.Add((1.0, -2.0)), ("wide", "same")),
        ("scale", mn.Scale(g.normal(size=(4, 1, 1)), 0.3)),
        ("turn", mn.Permute((2, 0, 1))),
        ("cat", mn.Concat(0), ("turn", "turn")),
        ("flat", mn.Reshape((96,))),
        ("fc", dense(g, 3, 96)),
    ]
    check_affine(mn.Network.build((2, 5, 7), nodes), mn.LInf(g.normal(size=(1, 2, 5, 7)), g.uniform(0, 1, (1, 2, 5, 7))), "fc")


def check_affine(network, region, name, which=None):
    """The bounds of a node that is affine in the input are its extremes, found by linear programming over its Jacobian."""
    x = torch.tensor(region.centre)
    jacobian = torch.autograd.functional.jacobian(lambda v: network.values(v)[name], x).reshape(-1, x.numel()).numpy()
    at_zero = network.values(torch.zeros_like(x))[name].flatten().numpy()
    box = mn.propagate(network, region, method="crown")[name]
    ends = list(zip(region.lower.reshape(-1), region.upper.reshape(-1), strict=True))
    which = np.arange(len(jacobian)) if which is None else np.flatnonzero(which)
    assert len(which)
    for k, row in zip(which, jacobian[which], strict=True):
        assert box.lower.values.reshape(-1)[k] == pytest.approx(linprog(row, bounds=ends).fun + at_zero[k], abs=1e-8)
        assert box.upper.values.reshape(-1)[k] == pytest.approx(-linprog(-row, bounds=ends).fun + at_zero[k], abs=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_rule_of_every_layer_holds_and_is_exact_where_it_says_so(name):
    layer, shapes = CASES[name]
    g = np.random.default_rng(0)
    assert has_backward(layer)
    out = layer.shape(*shapes)
    for _ in range(20):
        ends = [np.sort(g.normal(size=(2, 1, *shape)), axis=0) * g.uniform(0, 2) for shape in shapes]
        boxes = [Interval(torch.tensor(low), torch.tensor(high)) for low, high in ends]
        coefficients = torch.tensor(g.normal(size=(5, *out)))
        parts, shift = backward(layer, coefficients, *boxes)
        x = [
            torch.tensor(np.where(g.uniform(size=(60, *s)) < 0.3, low, g.uniform(low, high, (60, *s))))
            for s, (low, high) in zip(shapes, ends, strict=True)
        ]
        left = layer.forward(*x).flatten(1) @ coefficients.flatten(1).T
        right = shift + sum(v.flatten(1) @ a.flatten(1).T for v, a in zip(x, parts, strict=True))
        assert bool((left >= right - 1e-9).all())
        if backward.dispatch(type(layer)) in AFFINE_RULES:
            torch.testing.assert_close(left, right)


@pytest.mark.parametrize("choice", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (-np.inf, 0.4), (-0.5, 0.7), (0.2, 0.2), (-np.inf, np.inf)])
def test_lines_of_clips_enclose_at_every_choice(low, high, choice):
    g = np.random.default_rng(1)
    lower, upper = np.sort(g.uniform(-2, 2, (2, 400)), axis=0)
    lower[:20] = upper[:20]
    lower[20:30], upper[30:40] = low if np.isfinite(low) else 0.0, high if np.isfinite(high) else 0.0
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    box = Interval(torch.tensor(lower), torch.tensor(upper))
    found = clip_lines(box, low, high, None if choice is None else torch.full((400,), choice, dtype=torch.float64))
    for x in (box.lower + t * box.width for t in np.linspace(0, 1, 41)):
        y = x.clamp(low, high)
        assert bool((found.lower_slope * x + found.lower_shift <= y + 1e-12).all())
        assert bool((found.upper_slope * x + found.upper_shift >= y - 1e-12).all())
    linear = (box.upper <= low) | (box.lower >= high) | ((box.lower >= low) & (box.upper <= high))
    assert bool((~found.differ[linear]).all())


def test_lines_of_gates_are_the_chords_of_what_lies_between_zero_and_the_value():
    g = np.random.default_rng(2)
    lower, upper = np.sort(g.uniform(-2, 2, (2, 300)), axis=0)
    lower[:5] = upper[:5] = 0.0
    box = Interval(torch.tensor(lower), torch.tensor(upper))
    found = gate_lines(box)
    for end in (box.lower, box.upper):
        torch.testing.assert_close(found.lower_slope * end + found.lower_shift, end.clamp(max=0))
        torch.testing.assert_close(found.upper_slope * end + found.upper_shift, end.clamp(min=0))


@dataclass(frozen=True, eq=False)
class Absolute(Layer):
    """``y = |x|``, a layer of the user's own."""

    unitwise = True

    def shape(self, *inputs):
        return inputs[0]

    def forward(self, *inputs):
        return inputs[0].abs()


@mn.interval.register(Absolute)
def _(layer, x):
    ends = torch.maximum(x.lower.abs(), x.upper.abs())
    return Interval(torch.where(x.lower * x.upper < 0, 0.0, torch.minimum(x.lower.abs(), x.upper.abs())), ends)


def test_a_layer_without_a_rule_falls_back_to_its_intervals_and_one_with_a_rule_is_tighter():
    g = np.random.default_rng(3)
    network = mn.Network.build(
        (3,), [("fc1", dense(g, 6, 3)), ("abs", Absolute()), ("fc2", dense(g, 6, 6)), ("act", mn.ReLU()), ("fc3", dense(g, 4, 6))]
    )
    region = mn.LInf(g.normal(size=(2, 3)), 0.4)
    plain = mn.propagate(network, region, method="crown")
    with pytest.raises(
        UnsupportedError, match=r"no backward rule for layer `Absolute`; register one with `@mipnet.backward.register\(Absolute\)`"
    ):
        backward(Absolute(), torch.zeros(1, 6))

    @mn.backward.register(Absolute)
    def rule(layer, coefficients, x):
        """Above |x| lies its chord; below it x or -x."""
        assert len(x.lower) in (1, len(coefficients))
        chord = (x.upper.abs() - x.lower.abs()) / (x.upper - x.lower)
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        shift = negative * (x.upper.abs() - chord * x.upper)
        return (positive * torch.where(x.upper >= -x.lower, 1.0, -1.0) + negative * chord,), shift.flatten(1).sum(1)

    ruled = mn.propagate(network, region, method="crown")
    values = network.values(torch.tensor(g.uniform(region.lower[0], region.upper[0], (2000, 3))))
    for name in ("fc2", "fc3"):
        for bounds in (plain, ruled):
            assert bool((values[name] >= bounds.after[name].lower[0]).all())
            assert bool((values[name] <= bounds.after[name].upper[0]).all())
    assert ruled.width()["fc3"] < 0.9 * plain.width()["fc3"]


def test_a_wide_convolution_is_cut_into_parts(monkeypatch):
    g = np.random.default_rng(4)
    nodes = [("c1", mn.Conv2d(rand(3, 1, 3, 3))), ("a1", mn.ReLU()), ("c2", mn.Conv2d(rand(2, 3, 3, 3))), ("a2", mn.ReLU())]
    network = mn.Network.build((1, 8, 8), [*nodes, ("flat", mn.Reshape((32,))), ("fc", dense(g, 2, 32))])
    region = mn.LInf(g.uniform(size=(2, 1, 8, 8)), 0.2)
    whole = mn.propagate(network, region, method="alpha")
    monkeypatch.setattr("mipnet.bounds.crown.CROWN_COEFFICIENTS_MAX", 500)
    for name, box in mn.propagate(network, region, method="alpha").after.items():
        torch.testing.assert_close(box.lower, whole.after[name].lower)
        torch.testing.assert_close(box.upper, whole.after[name].upper)


def test_auto_keeps_intervals_where_linear_bounds_would_take_long(monkeypatch):
    g = np.random.default_rng(5)
    network, region = relu_net(g), mn.LInf(g.normal(size=(1, 4)), 0.5)
    assert mn.propagate(network, region).width() == mn.propagate(network, region, method="crown").width()
    monkeypatch.setattr("mipnet.bounds.propagation.AUTO_COEFFICIENTS_MAX", 0)
    assert mn.propagate(network, region).width() == mn.propagate(network, region, method="interval").width()


def test_optimised_lines_are_tighter_and_hold():
    network, region = one_input_network(3, (8, 8, 3)), mn.Box([[-3.0]], [[3.0]])
    values = values_at_kinks(network, -3.0, 3.0)["fc2"]
    widths = {}
    for method in ("crown", "alpha"):
        box = mn.propagate(network, region, method=method).after["fc2"]
        assert (box.lower[0].numpy() <= values.min(axis=0)).all()
        assert (box.upper[0].numpy() >= values.max(axis=0)).all()
        widths[method] = float(box.width.sum())
    assert widths["alpha"] < 0.98 * widths["crown"]
