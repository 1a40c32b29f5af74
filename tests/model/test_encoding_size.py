"""The size of an encoding is estimated before it is written, close to what is written then; what would not fit is refused."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import MemoryLimitReached
from mipnet.formulations.formulation_choice import NetworkFacts
from mipnet.formulations.program_size import ProgramSize
from mipnet.model.encoding_size import EncodingSize, encoding_size
from mipnet.model.node_values import FormulationRequest
from mipnet.model.to_program import from_model
from tests.limits.room import room
from tests.nets import conv, dense, make, mlp, residual, strided
from tests.sweep import in_turn

Generator = np.random.Generator

ESTIMATE_FACTOR_MAX = 1.5
"""How far an estimate may be off, up or down."""


def chain(g: Generator) -> mn.Network:
    layers = [("fc1", dense(g, 30, 20)), ("act1", mn.ReLU()), ("fc2", dense(g, 40, 30)), ("act2", mn.LeakyReLU(0.1))]
    return mn.Network.build((20,), [*layers, ("fc3", dense(g, 20, 40)), ("act3", mn.Clip(0.0, 1.0)), ("fc4", dense(g, 4, 20))])


def pooled(g: Generator) -> mn.Network:
    head = [("conv1", conv(g, 4, 1, (3, 3))), ("act1", mn.ReLU()), ("pool1", mn.MaxPool2d(mn.Window((2, 2), (2, 2))))]
    middle = [("conv2", conv(g, 6, 4, (2, 2))), ("act2", mn.ReLU()), ("pool2", mn.AvgPool2d(mn.Window((3, 3), (3, 3))))]
    return mn.Network.build((1, 10, 10), [*head, *middle, ("flat", mn.Reshape((6,))), ("fc", dense(g, 5, 6))])


def estimated(encoding: mn.Encoding, formulation: dict[str, str | int]) -> EncodingSize:
    facts = NetworkFacts.of(encoding.bounds)
    return encoding_size(encoding.network, encoding.region, encoding.bounds, FormulationRequest(formulation, facts))


def counted(encoding: mn.Encoding) -> ProgramSize:
    program = from_model(encoding.model)
    rows = [program.rows, *([program.indicators.rows] if program.indicators is not None else [])]
    return ProgramSize(program.columns, sum(map(len, rows)), sum(each.matrix.nnz for each in rows))


FORMULATIONS = ("big-m", "sos1", "indicator", "triangle", "partition", "hull", "anderson")


@pytest.mark.parametrize(
    ("family", "formulation", "sets"),
    in_turn(itertools.product([chain, pooled], FORMULATIONS), ["box", "gated box", "gated images", "published"]),
)
def test_an_estimate_is_close_to_what_is_written(family, formulation: str, sets: str) -> None:
    g = np.random.default_rng(0)
    network = family(g)
    x = g.normal(size=(3, *network.input_shape))
    asked: dict[str, str | int] = {"relu": formulation}
    if family is pooled:
        asked["maxpool2d"] = {"hull": "hull", "triangle": "triangle", "indicator": "indicator"}.get(formulation, "big-m")
    gates = None if sets == "box" else "all"
    region = mn.LInf(x, 0.1) if "box" in sets else mn.Samples(x)
    encoding = mn.encode(network, region, formulation=asked, gates=gates, bounds="paper" if sets == "published" else "sound")
    found, real = estimated(encoding, asked).total, counted(encoding)
    for name in ("columns", "rows", "nonzeros"):
        ratio = getattr(found, name) / getattr(real, name)
        assert 1 / ESTIMATE_FACTOR_MAX <= ratio <= ESTIMATE_FACTOR_MAX, f"{name}: {found} estimated, {real} written"


@pytest.mark.parametrize("family", [mlp, residual, strided])
def test_small_networks_of_every_layer(family) -> None:
    network, g = make(family, 3)
    encoding = mn.encode(network, mn.LInf(g.normal(size=(2, *network.input_shape)), 0.2))
    found, real = estimated(encoding, {}).total, counted(encoding)
    assert (found.columns, found.rows) == (real.columns, real.rows)
    assert found.nonzeros == pytest.approx(real.nonzeros, rel=0.2)


def test_a_formulation_of_ones_own_counts_as_the_default_one() -> None:
    from mipnet.formulations.relu import POSITIVE_PART, big_m, link

    link("own size")(lambda part: big_m(part))
    try:
        network = chain(np.random.default_rng(1))
        encoding = mn.encode(network, mn.LInf(np.zeros((1, 20)), 0.5), formulation={"relu": "own size"})
        assert estimated(encoding, {"relu": "own size"}).total == estimated(encoding, {"relu": "big-m"}).total
    finally:
        del POSITIVE_PART.formulations["own size"]


def wide(samples: int) -> tuple[mn.Network, mn.Box]:
    g = np.random.default_rng(2)
    layers = [("fc1", dense(g, 300, 100)), ("act1", mn.ReLU()), ("fc2", dense(g, 300, 300)), ("act2", mn.ReLU()), ("fc3", dense(g, 5, 300))]
    return mn.Network.build((100,), layers), mn.LInf(g.random((samples, 100)), 0.2)


@pytest.mark.parametrize("formulation", ["big-m", "hull"])
def test_the_bytes_are_those_that_writing_takes(formulation: str) -> None:
    network, region = wide(1)
    bounds = mn.propagate(network, region, method="interval")
    tracemalloc.start()
    try:
        encoding = mn.encode(network, region, bounds=bounds, formulation={"relu": formulation})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / 2 <= estimated(encoding, {"relu": formulation}).bytes <= 2 * peak


def test_a_program_that_would_not_fit_is_refused_before_it_is_written() -> None:
    network, region = wide(50)
    bounds = mn.propagate(network, region, method="interval")
    said = (
        r"^the program of the network on 50 samples \(.* rows, .* columns, 6,.* nonzeros\) would take about .* MB;"
        r" the memory limit is .* [MG]B, and .* [MG]B are in use: give fewer samples, or raise `memory_limit`$"
    )
    tracemalloc.start()
    try:
        with room(30e6), pytest.raises(MemoryLimitReached, match=said):
            mn.encode(network, region, bounds=bounds)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    with room(30e6):
        assert mn.encode(network, region.only(0), bounds="interval").output.shape == (1, 5)


def test_a_model_is_as_before_after_a_refusal() -> None:
    network, region = wide(50)
    model = mn.encode(network, region.only(0), bounds="interval").model
    x = model.add_variables(lower=region.lower, upper=region.upper, name="x", dims=["sample", "input_unit"])
    names = [*model.variables, *model.constraints]
    with room(30e6), pytest.raises(MemoryLimitReached):
        mn.add_network(model, network, x, bounds="interval", prefix="second_")
    assert [*model.variables, *model.constraints] == names
