"""Formulations registered by users: one registration is available for all layers of a family, and states whether it is a relaxation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.errors import InputError
from mipnet.formulations.affine import Affine
from mipnet.formulations.maxpool import WINDOW_MAXIMUM, MaxWindows, maximum
from mipnet.formulations.registry import _OWN_FORMULATIONS
from mipnet.formulations.relu import POSITIVE_PART, PositivePart, link
from mipnet.testing import check_layer
from tests.nets import dense
from tests.sweep import sweep

BACKENDS = ("highs", "scip")


@pytest.fixture
def mine() -> Iterator[None]:
    """Two-row big-M for positive parts, ``h <= z - l (1 - v)`` and ``h <= u v``: exact, registered once."""

    @link("mine")
    def two_rows(part: PositivePart) -> Affine:
        h = part.block.variable(part.suffix, part.h_lower, part.upper, where=part.own, value=lambda p: np.maximum(part.z.evaluate(p), 0))
        v = part.switch()
        part.block.rows(f"{part.tag}above", (h - part.z)[part.own], ">=")
        part.rows("below", h - part.z - v * part.lower, "<=", -part.lower)
        part.rows("off", h - v * part.upper, "<=")
        decided = part.own & ~part.undecided
        part.block.rows(f"{part.tag}equal", (h - part.z)[decided], "<=")
        return h

    yield
    del POSITIVE_PART.formulations["mine"]


def network(activation: mn.Layer) -> mn.Network:
    g = np.random.default_rng(3)
    return mn.Network.build((4,), [("fc1", dense(g, 8, 4)), ("act", activation), ("fc2", dense(g, 1, 8))])


def largest(net: mn.Network, formulation: dict[str, str], backend: str) -> mn.Result:
    encoding = mn.encode(net, mn.Box(-np.ones((1, 4)), np.ones((1, 4))), formulation=formulation)
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    result = mn.solve(encoding, backend)
    assert result.verified
    assert encoding.relaxed == ()
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "activation"), [("relu", mn.ReLU()), ("leakyrelu", mn.LeakyReLU(0.1)), ("clip", mn.Clip(-0.5, 0.8))])
def test_one_registration_serves_every_layer_of_positive_parts(mine: None, kind: str, activation: mn.Layer, backend: str) -> None:
    own = largest(network(activation), {kind: "mine"}, backend)
    assert own.objective == pytest.approx(largest(network(activation), {kind: "big-m"}, backend).objective, abs=1e-5)
    encoding = mn.encode(network(activation), mn.Box(-np.ones((1, 4)), np.ones((1, 4))), formulation={kind: "mine"})
    assert encoding.block("act").formulation == "mine"


def test_a_name_of_another_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"formulation `big-m` is registered by `mipnet\.formulations\.relu` already; choose another name"):
        link("big-m")(lambda part: part.split()[0])
    assert POSITIVE_PART.formulations["big-m"].write.__module__ == "mipnet.formulations.relu"


@pytest.mark.parametrize("seed", sweep(range(5), every=5))
def test_a_relaxation_that_is_not_marked_as_one_is_found_out(seed: int) -> None:
    @link("unmarked")
    def unmarked(part: PositivePart) -> Affine:
        return part.split()[0]

    try:
        with pytest.raises(AssertionError, match="`ReLU` \\(unmarked\\) solves and replays"):
            check_layer(mn.ReLU(), (4,), seed=seed)
    finally:
        del POSITIVE_PART.formulations["unmarked"]


def test_gates_take_it_too(mine: None) -> None:
    encoding = mn.encode(network(mn.ReLU()), mn.Samples(np.full((2, 4), 0.5)), gates="all", formulation={"relu": "mine"})
    assert encoding.block("act").formulation == "mine"


def test_the_checks_of_a_layer_find_it(mine: None) -> None:
    check_layer(mn.LeakyReLU(0.2), (3,))


def test_a_maximum_from_outside_is_found_by_name() -> None:
    @maximum("upper-only", relaxed=True)
    def upper_only(of: MaxWindows) -> Affine:
        p = of.maximum()
        of.block.rows("above", p[of.window] - of.inputs, ">=")
        return p

    try:
        pool = mn.Network.build((1, 2, 2), [("pool", mn.MaxPool2d(mn.Window((2, 2), (2, 2))))])
        encoding = mn.encode(pool, mn.Box(np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2))), formulation={"maxpool2d": "upper-only"})
        assert encoding.relaxed == ("pool",)
    finally:
        del WINDOW_MAXIMUM.formulations["upper-only"]


@dataclass(frozen=True, eq=False)
class Absolute(mn.Layer):
    """``y = |x|``."""

    def shape(self, *inputs: tuple[int, ...]) -> tuple[int, ...]:
        return inputs[0]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].abs()


@mn.interval.register(Absolute)
def _(layer: Absolute, x: mn.Interval) -> mn.Interval:
    away = torch.maximum(x.lower, -x.upper).clamp(min=0)
    return mn.Interval(away, torch.maximum(x.lower.abs(), x.upper.abs()))


def exact(layer: Absolute, block: mn.Block, x: Affine) -> Affine:
    lower, upper = block.finite()
    largest = np.maximum(np.abs(lower), np.abs(upper))
    y = block.variable("", 0.0, largest, value=lambda point: np.abs(x.evaluate(point)))
    v = block.variable("sign", 0, 1, binary=True, value=lambda point: (x.evaluate(point) > 0).astype(float))
    block.rows("above", y - x, ">=")
    block.rows("above_negative", y + x, ">=")
    block.rows("below", y - x + v * (2 * largest), "<=", 2 * largest)
    block.rows("below_negative", y + x - v * (2 * largest), "<=")
    return y


def convex(layer: Absolute, block: mn.Block, x: Affine) -> Affine:
    lower, upper = block.finite()
    y = block.variable("", 0.0, np.maximum(np.abs(lower), np.abs(upper)), value=lambda point: np.abs(x.evaluate(point)))
    block.rows("above", y - x, ">=")
    block.rows("above_negative", y + x, ">=")
    return y


@pytest.fixture
def absolute() -> Iterator[None]:
    """An exact formulation that is called "triangle", as a relaxation of ReLU is, and a relaxed one that is called "big-m"."""
    mn.encoding(Absolute, "triangle")(exact)
    mn.encoding(Absolute, "big-m", relaxed=True)(convex)
    yield
    del _OWN_FORMULATIONS[Absolute]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_registration_says_what_is_relaxed_and_not_the_name(absolute: None, backend: str) -> None:
    region, found = mn.Box(-np.ones((1, 4)), np.ones((1, 4))), {}
    for name in ("triangle", "big-m"):
        encoding = mn.encode(network(Absolute()), region, formulation={"absolute": name})
        encoding.model.add_objective(encoding.output.sum(), sense="max")
        found[name] = mn.solve(encoding, backend)
        assert encoding.relaxed == (("act",) if name == "big-m" else ())
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    assert found["triangle"].verified
    assert found["triangle"].bound >= network(Absolute()).forward(corners).max() - 1e-6
    assert found["big-m"].bound >= found["triangle"].objective - 1e-6


def test_a_gate_after_an_own_layer_is_written_as_relu_is(absolute: None) -> None:
    encoding = mn.encode(network(Absolute()), mn.Samples(np.full((1, 4), 0.5)), gates="all", formulation={"absolute": "triangle"})
    assert encoding.relaxed == ()


@dataclass(frozen=True, eq=False)
class _Faulty(mn.Layer):
    def shape(self, *inputs):
        return inputs[0]

    def forward(self, *inputs):
        return inputs[0]


def _without_return(layer, block, x):
    block.variable("", 0.0, 1.0, value=x.evaluate)


def _suffix_twice(layer, block, x):
    for _ in range(2):
        block.variable("half", 0.0, 1.0, value=x.evaluate)
    return x


def _rows_twice(layer, block, x):
    for _ in range(2):
        block.rows("half", x, ">=")
    return x


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_without_return, r"formulation `own` of layer `_?\w*`.* returned NoneType; expected .*: is its `return` missing\?"),
        (_suffix_twice, "adds variables with the suffix `half` twice"),
        (_rows_twice, "adds rows with the suffix `half` twice"),
    ],
)
def test_a_faulty_formulation_is_named(write, message):
    mn.interval.register(_Faulty, lambda layer, x: x)
    mn.encoding(_Faulty, "own")(write)
    network = mn.Network.build((2,), [("faulty", _Faulty())])
    try:
        with pytest.raises(InputError, match=message):
            mn.encode(network, mn.Box(np.zeros((1, 2)), np.ones((1, 2))), bounds="interval")
    finally:
        del _OWN_FORMULATIONS[_Faulty]


def test_a_formulation_of_a_family_without_return_is_named():
    link("nothing")(lambda part: None)
    try:
        network = mn.Network.build(
            (2,), [("fc", dense(np.random.default_rng(0), 3, 2)), ("act", mn.ReLU()), ("out", mn.Dense(np.ones((1, 3))))]
        )
        with pytest.raises(InputError, match=r"formulation `nothing` of layer `.*` .* returned NoneType"):
            mn.encode(network, mn.Box(-np.ones((1, 2)), np.ones((1, 2))), formulation={"relu": "nothing"})
    finally:
        del POSITIVE_PART.formulations["nothing"]


@pytest.mark.parametrize("name", ["auto", "frozen"])
def test_reserved_names_are_refused(name):
    for register in (mn.encoding(mn.MaxPool2d, name), link(name), WINDOW_MAXIMUM.register(name)):
        with pytest.raises(InputError, match=f"the name `{name}` is reserved"):
            register(lambda *given: None)


def test_a_class_is_not_a_layer():
    with pytest.raises(InputError, match=r"the class ReLU as `layer`; expected a layer, such as `mn.ReLU\(\)`"):
        check_layer(mn.ReLU, (2,))
