"""A solver that fails at its n-th solve: what was proven before is returned, and the result says that the solver failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mipnet_highs.adapter import HiGHS

import mipnet as mn
from tests.failing_solver import WORDS, Failing
from tests.sweep import marked


def net(seed: int = 0, activation: mn.Layer | None = None) -> mn.Network:
    g = np.random.default_rng(seed)
    sizes = (12, 6, 6, 3)
    layers: list[tuple[str, mn.Layer]] = []
    for k in range(3):
        layers.append((f"fc{k}", mn.Dense(g.normal(size=(sizes[k + 1], sizes[k])) / np.sqrt(sizes[k]), 0.3 * g.normal(size=sizes[k + 1]))))
        layers += [(f"act{k}", activation or mn.ReLU())] if k < 2 else []
    return mn.Network.build((12,), layers)


NET, OTHER = net(), net(1)
REGION = mn.Box(-np.ones((1, 12)), np.ones((1, 12)))
SAMPLES = REGION.lower + 2 * np.random.default_rng(2).uniform(size=(400, 12))
Y = NET.forward(SAMPLES)


def reach(backend: HiGHS) -> Any:
    found = mn.reach(NET, REGION, backend=backend)
    assert np.isfinite([found.lower, found.upper]).all()
    assert ((found.lower <= Y) & (found.upper >= Y)).all()
    return found


def verify(backend: HiGHS) -> Any:
    clipped = net(0, mn.Clip(0.0, 0.8))  # no branching on signs: the solver decides
    high = float(clipped.forward(SAMPLES)[:, 0].max()) + 0.1
    case = mn.Case(
        mn.Box(REGION.lower.reshape(1, -1), REGION.upper.reshape(1, -1)), (mn.Clause(np.array([[-1.0, 0, 0]]), np.array([-high])),)
    )
    found = mn.verify(clipped, mn.Property((case,)), backend=backend)
    assert found.status == ("unknown" if backend.at == 1 else "unsat")
    return found


def margin(backend: HiGHS) -> Any:
    found = mn.maximum_margin(NET, REGION, 0, backend=backend)
    reached = (Y[:, 0] - Y[:, 1:].max(axis=1)).max()
    assert reached <= found.upper < np.inf
    return found


def agree(backend: HiGHS) -> Any:
    found = mn.agree(NET, OTHER, REGION, backend=backend)
    assert np.abs(Y - OTHER.forward(SAMPLES)).max() <= found.bound < np.inf
    return found


def distortion(backend: HiGHS) -> Any:
    found = mn.minimum_distortion(NET, np.full(12, 0.5), upper=0.4, norm="l1", backend=backend)
    assert found.lower > 0
    return found


TASKS = {task.__name__: task for task in (reach, verify, margin, agree, distortion)}
CASES = [(task, at) for at in (1, 2, 4) for task in TASKS]


@pytest.mark.parametrize(("task", "at"), [each if each in (("verify", 1), ("margin", 1)) else marked(each) for each in CASES])
def test_what_was_proven_before_is_kept(task: str, at: int) -> None:
    backend = Failing(at)
    found = TASKS[task](backend)
    if backend.solves >= at:
        assert any("solver failed" in text and WORDS in text for text in found.warnings)
    else:
        assert at > 1


def test_bounds_of_a_layer_are_those_of_before() -> None:
    start = mn.propagate(NET, REGION, method="alpha")
    backend = Failing(3)
    found = mn.tighten(NET, REGION, method="mip", start=start, backend=backend)
    assert backend.solves >= 3
    for name, box in found.after.items():
        assert ((box.lower >= start.after[name].lower) & (box.upper <= start.after[name].upper)).all()
    assert any("solver failed" in text for text in found.warnings)
