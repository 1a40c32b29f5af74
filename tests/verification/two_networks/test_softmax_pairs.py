"""Two networks that end in a softmax: their difference against torch, what is refused, and compressed networks that keep it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.verification.two_networks.output_difference import DifferenceScale
from tests.sweep import sweep
from tests.verification.softmaxes import LASTS, made, run, samples

BACKENDS = ("highs", "scip")


def changed(module: nn.Sequential, how: str) -> nn.Sequential:
    """A copy of a module with rounded weights, shifted logits, or scaled logits."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        if how == "rounded":
            other.load_state_dict({name: value.half().double() for name, value in module.state_dict().items()})
        elif how == "shifted":
            other[2].bias.add_(3.0)
        else:
            other[2].weight.mul_(1.5)
    return other


def read(module: nn.Module, inputs: int = 2) -> mn.Network:
    return mn.from_torch(module, torch.zeros(1, inputs, dtype=torch.float64))


CASES = [(kind, how, k) for kind in LASTS for how in ("rounded", "shifted", "scaled") for k in (3, 2)]


@pytest.mark.parametrize(
    ("kind", "how", "outputs", "backend"), sweep([(*case, backend) for case in CASES for backend in BACKENDS], every=5)
)
def test_the_difference_lies_between_samples_and_bound(kind: str, how: str, outputs: int, backend: str) -> None:
    module, network, region = made(kind, outputs, 5, scale=1.0)
    other = changed(module, how)
    found, x = mn.agree(network, read(other), region, backend=backend, time_limit=20), samples(2)
    true = np.abs(run(module, x) - run(other, x)).max()
    assert true <= found.bound + 1e-15
    assert found.point is not None
    y = [run(each, found.point[None])[0] for each in (module, other)]
    assert np.abs(y[0] - y[1]).max() == pytest.approx(found.largest, abs=1e-12)
    assert np.allclose(found.first, y[0])
    assert np.allclose(found.second, y[1])
    assert found.largest >= 0.8 * true - 1e-12
    if how != "rounded":
        assert found.agree is (how == "shifted")
    if how == "rounded":
        assert mn.agree(network, read(other), region, within=5e-3, backend=backend).agree is True
    if how == "scaled":
        apart = mn.agree(network, read(other), region, within=true / 2, backend=backend)
        assert apart.agree is False
        assert apart.largest > true / 2


@pytest.mark.parametrize(("kind", "limit"), [("softmax", 0.3), ("softmax", 1.0), ("log_softmax", 2.0)])
def test_the_conversion_is_attained_and_never_exceeded(kind: str, limit: float) -> None:
    """The worst pair of logits, worked out by hand, and random ones."""
    scale = DifferenceScale(FinalSoftmax(kind, (0,)), (4,))  # type: ignore[arg-type]
    generator, softmax = np.random.default_rng(0), FinalSoftmax(kind, (0,))  # type: ignore[arg-type]
    y = generator.normal(size=(20_000, 4)) * 10 ** generator.uniform(-2, 1, (20_000, 1))
    d = generator.normal(size=(20_000, 4)) * 10 ** generator.uniform(-3, 1, (20_000, 1))
    p, q = (softmax.apply(torch.tensor(each)).numpy() for each in (y + d, y))
    spread = np.ptp(d, axis=1)
    assert np.allclose((d @ scale.matrix.T).max(axis=1), spread)
    assert (np.abs(p - q).max(axis=1) <= np.array([scale.outputs(s) for s in spread]) + 1e-12).all()
    s = 1.7
    y = np.array([-s / 2, -np.log(3)] + 2 * [-np.log(3)]) if kind == "softmax" else np.array([-40.0, 0, 0, 0])
    p, q = (softmax.apply(torch.tensor(each)[None]).numpy() for each in (y + np.array([s, 0, 0, 0]), y))
    assert np.abs(p - q).max() == pytest.approx(scale.outputs(s), rel=1e-9)
    assert scale.outputs(scale.enough(limit)) <= limit


def test_many_outputs_are_not_paired() -> None:
    scale = DifferenceScale(FinalSoftmax("softmax", (0,)), (40,))
    assert scale.matrix.shape == (80, 40)
    d = np.random.default_rng(0).normal(size=(100, 40))
    assert ((d @ scale.matrix.T).max(axis=1) >= np.ptp(d, axis=1)).all()
    one = DifferenceScale(FinalSoftmax("softmax", (1,)), (3, 1))
    assert not one.matrix.any()
    pairs = DifferenceScale(FinalSoftmax("log_softmax", (0,)), (2, 3)).matrix
    assert pairs.shape == (6, 6)
    assert not (pairs[:, :3] + pairs[:, 3:]).any()  # each pair is of the same column


@pytest.mark.parametrize("second", ["none", "log_softmax", "softmax over rows"])
def test_different_endings_are_refused_but_name_the_same_class(second: str) -> None:
    module, network, region = made("softmax", 4, 1)
    if second == "softmax over rows":
        layers = [*((n.name, n.layer, n.inputs) for n in network.nodes), ("view", mn.Reshape((2, 2)))]
        first = mn.Network.build((2,), layers, softmax=FinalSoftmax("softmax", (0, 1)))
        other = mn.Network.build((2,), layers, softmax=FinalSoftmax("softmax", (1,)))
    else:
        first, other = network, read(module[:-1] if second == "none" else nn.Sequential(*module[:-1], nn.LogSoftmax(1)))
    with pytest.raises(UnsupportedError, match=r"ends in a softmax.*the second ends in.*different quantities.*without_softmax"):
        mn.agree(first, other, region)
    with pytest.raises(UnsupportedError, match="different quantities"):
        mn.agree(other, first, region)
    if second == "softmax over rows":
        with pytest.raises(UnsupportedError, match="2 distributions"):
            mn.agree_on_class(first, other, region)
        return
    found = mn.agree_on_class(network, other, region)
    assert found.agree is True
    assert mn.agree(network.without_softmax(), other.without_softmax(), region).bound < 1e-9


@pytest.mark.parametrize(("kind", "backend"), sweep([(kind, backend) for kind in LASTS for backend in BACKENDS], every=3))
def test_a_compressed_network_keeps_it(kind: str, backend: str, tmp_path: Path) -> None:
    module, network, _ = made(kind, 3, 4)
    region = mn.Box(np.full((1, 2), 0.2), np.full((1, 2), 0.5))
    found = mn.compress(network, region, backend=backend)
    assert found.network.softmax == network.softmax
    assert found.agreement.agree is True
    assert sum(layer.kept for layer in found.layers) < 6
    x = region.lower + samples(2, 500).clip(0, 1) * 0.3
    small = found.module(torch.float64)
    assert np.abs(run(small, x) - run(module, x)).max() < 1e-10
    path = mn.export(small, tmp_path / "small.onnx", torch.zeros(1, 2, dtype=torch.float64))
    session = ort.InferenceSession(str(path))
    y = np.concatenate([session.run(None, {session.get_inputs()[0].name: each[None]})[0] for each in x[:20]])
    assert np.abs(y - run(module, x[:20])).max() < 1e-9
    assert mn.read(path).softmax == network.softmax


@pytest.mark.parametrize(("axes", "names"), [((1,), ["softmax"]), ((0, 1), ["flat_output", "softmax", "output"]), ((0, 2), None)])
def test_a_compressed_module_has_the_shape_of_the_output(axes: tuple[int, ...], names: list[str] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2) if names else (2, 2, 1)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    layers = [("fc1", mn.Dense(weight.T @ weight)), ("relu1", mn.ReLU()), ("fc2", mn.Dense(weight)), ("view", mn.Reshape(shape))]
    network = mn.Network.build((3,), layers, softmax=FinalSoftmax("softmax", axes))
    found = mn.compress(network, mn.Box(np.full((1, 3), 0.1), np.full((1, 3), 0.2)))
    assert found.agreement.agree is True
    if names is None:
        with pytest.raises(UnsupportedError, match="no module of torch"):
            found.module()
        return
    module = found.module(torch.float64)
    assert [name for name, _ in module.named_children()][-len(names) :] == names
    x = 0.1 + 0.1 * np.random.default_rng(0).uniform(size=(50, 3))
    assert np.allclose(run(module, x), network.outputs(x), atol=1e-10)
