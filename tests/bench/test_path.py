"""A path along the loss weight on one open problem, against programs posed and solved one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import mipnet as mn
from tests.bench.measure import cpu_times
from tests.bench.registry import Bench, Row, Section
from tests.bench.test_build import lenet5, network

WEIGHTS = mn.spaced_weights(0.5, 20, 6)
UNIT = {"path": "s", "one by one": "s", "one by one / path": "ratio", "largest difference": ""}


def question(net: mn.Network, images: int, relu: str) -> mn.Importance:
    pixels = np.random.default_rng(1).uniform(size=(images, *net.input_shape))
    return mn.Importance(net, pixels, np.arange(images) % 10, formulation={"relu": relu})


def alone(asked: mn.Importance, weight: float) -> float:
    result = mn.solve(replace(asked, objective=mn.Objective(weight)).pose())
    assert result.objective is not None
    return result.objective


def path(net: mn.Network, images: int, relu: str) -> Row:
    asked = question(net, images, relu)
    found: dict[str, list[float | None]] = {}

    def together() -> None:
        found["path"] = [point.found.result.objective for point in mn.weight_path(asked, WEIGHTS).points]

    def one_by_one() -> None:
        found["alone"] = [alone(asked, weight) for weight in WEIGHTS]

    mine, theirs = cpu_times(together, one_by_one)
    off = float(np.abs(np.subtract(found["path"], found["alone"])).max())
    assert off <= 2e-4 * max(1.0, *np.abs(found["alone"]))
    return {"path": mine, "one by one": theirs, "one by one / path": theirs / mine, "largest difference": off}


SECTION = Section(
    "Solve: a path of six loss weights",
    """
The importance program for six loss weights from 0.5 to 20 on HiGHS, with a gap limit of 1e-4. `mn.weight_path` builds the program
once; it is compared with `mn.solve` of six programs. The networks have random weights, and the images are noise. In reduced
space, a program is small and quick to build, so the time saved is that of the cuts. The full program is large, and the time saved is
mostly that of building it.
""",
    (
        Bench("LeNet-5, 100 images, reduced space", partial(path, lenet5(), 100, "frozen"), UNIT),
        Bench("784-300-100-10, 10 images, full program", partial(path, network(), 10, "big-m"), UNIT),
    ),
)


@pytest.mark.bench
@pytest.mark.parametrize("bench", SECTION.benches, ids=lambda bench: bench.name)
def test_path(bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    assert set(found) == set(bench.unit)
    measured.setdefault(SECTION, {})[bench.name] = found
    print(SECTION.title, bench.name, found)
