"""What a search gives a solve of one second, what it costs one that needs none, and rows written in rounds or in one tree."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from mipnet_scip import SCIP

import mipnet as mn
from mipnet.backend import Backend, Feature
from mipnet.model.losses import Loss, add_loss
from mipnet.solving.problem import Start
from tests.bench.registry import Bench, Row, Section
from tests.nets import dense
from tests.pruning.importance.questions import ask

SEEDS = (0, 1, 2)
SOLVERS = ("highs", "scip")
STARTS: tuple[Start, ...] = ("forward", "search")


class Tangential(SCIP):
    """SCIP without its native log-sum-exp."""

    features = SCIP.features - {Feature.LOG_SUM_EXP}


class InRounds(Tangential):
    """SCIP that takes no lazy rows either."""

    features = Tangential.features - {Feature.LAZY}


def mlp(seed: int, *widths: int) -> tuple[mn.Network, np.random.Generator]:
    g = np.random.default_rng(seed)
    parts = [(f"fc{i}", dense(g, m, n)) for i, (n, m) in enumerate(pairwise(widths))]
    layers = [part for i, fc in enumerate(parts) for part in (fc, (f"r{i}", mn.ReLU()))]
    return mn.Network.build((widths[0],), layers[:-1]), g


def box(seed: int, *widths: int, radius: float, loss: bool = False) -> mn.Encoding:
    """The least sum of the outputs, or cross-entropy of class 0, over a box."""
    network, g = mlp(seed, *widths)
    encoding = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, widths[0])), radius))
    encoding.model.add_objective(1.0 * (add_loss(encoding, [0], Loss()) if loss else encoding.output.sum()))
    return encoding


def scores(seed: int, *widths: int, images: int, **options: object) -> object:
    """An importance program about noise; ``sound`` unless it is in reduced space."""
    network, g = mlp(seed, *widths)
    x = g.uniform(0, 1, (images, widths[0]))
    given = {"bounds": "paper" if "formulation" in options else "sound"} | options
    return ask(network, x, network.forward(x).argmax(axis=1), **given).pose()


def second(pose: Callable[[int], object]) -> Row:
    """The mean objective after one second, by solver and start."""
    found = {}
    for solver in SOLVERS:
        for start in STARTS:
            results = [mn.solve(pose(seed), solver, time_limit=1.0, start=start) for seed in SEEDS]
            assert all(result.verified for result in results)
            found[f"{solver}, {start}"] = float(np.mean([result.objective for result in results if result.objective is not None]))
    return found


def spent(pose: Callable[[int], object], backend: str | Backend, start: Start = "forward", limit: float = math.inf) -> tuple[float, int]:
    """CPU seconds of three solves, and how many were not proven within ``limit`` seconds."""
    began, unproven = time.process_time(), 0
    for seed in SEEDS:
        unproven += mn.solve(pose(seed), backend, time_limit=limit, start=start).status is not mn.Status.OPTIMAL
    return time.process_time() - began, unproven


def cost(pose: Callable[[int], object]) -> Row:
    found: dict[str, float | None] = {}
    for solver in SOLVERS:
        plain, searched = (spent(pose, solver, start)[0] for start in STARTS)
        found |= {f"{solver}, forward": plain, f"{solver}, search": searched, f"{solver}, search / forward": searched / plain}
    return found


def later(pose: Callable[[int], object], native: bool) -> Row:
    found: dict[str, float | None] = {"SCIP, native": spent(pose, SCIP(), limit=10.0)[0] if native else None}
    for name, backend in (("SCIP, rounds", InRounds()), ("SCIP, tree", Tangential()), ("HiGHS, rounds", "highs")):
        found[name], found[f"{name}: unproven"] = spent(pose, backend, limit=10.0)
    return found


UNIT = {f"{solver}, {start}": "" for solver in SOLVERS for start in STARTS}
COST = {f"{solver}, {what}": "ratio" if "/" in what else "s" for solver in SOLVERS for what in (*STARTS, "search / forward")}
LATER = {"SCIP, native": "s"} | {
    f"{name}{what}": unit for name in ("SCIP, rounds", "SCIP, tree", "HiGHS, rounds") for what, unit in (("", "s"), (": unproven", ""))
}
BINARY = {"kind": "binary", "formulation": {"relu": "frozen"}, "epsilon": 1e-3}

FIRST = Section(
    "Solve: one second, from a forward pass and from a search",
    """
The mean objective of three programs after one second each, with the start point of the forward pass and with `start="search"`. The
objectives are minimised. The networks have random weights, and the images are noise. None of the twelve programs was solved within
five seconds. The second is wall-clock time, on cores that were shared with other processes.
""",
    (
        Bench("sum of outputs, 100-60-60-60-10, radius 0.1", partial(second, lambda s: box(s, 100, 60, 60, 60, 10, radius=0.1)), UNIT),
        Bench("sum of outputs, 784-100-100-10, radius 0.05", partial(second, lambda s: box(s, 784, 100, 100, 10, radius=0.05)), UNIT),
        Bench("scores, 64-50-20-10, 10 images", partial(second, lambda s: scores(s, 64, 50, 20, 10, images=10)), UNIT),
        Bench("the same, binary", partial(second, lambda s: scores(s, 64, 50, 20, 10, images=10, kind="binary")), UNIT),
    ),
)

EASY = Section(
    "Solve: cost of the search for easy programs",
    """
CPU time to the proven optimum of three small programs, with a gap limit of 1e-4.
""",
    (
        Bench("sum of outputs, 6-12-12-2, radius 0.4", partial(cost, lambda s: box(s, 6, 12, 12, 2, radius=0.4)), COST),
        Bench("cross-entropy, 8-12-10-4, radius 0.3", partial(cost, lambda s: box(s, 8, 12, 10, 4, radius=0.3, loss=True)), COST),
        Bench("scores, 6-12-10-3, 6 images", partial(cost, lambda s: scores(s, 6, 12, 10, 3, images=6)), COST),
        Bench("the same, binary", partial(cost, lambda s: scores(s, 6, 12, 10, 3, images=6, kind="binary")), COST),
    ),
)

ROWS = Section(
    "Solve: rows added during a solve, in rounds and in one tree",
    """
CPU time of three programs per line, with a gap limit of 1e-4 and at most ten seconds per solve. Tangents of the cross-entropy and rows
of the activation patterns are added when points violate them, in rounds or at the nodes of SCIP's tree. *Native* passes log-sum-exp to
SCIP directly. *Unproven* counts the solves that reached the time limit.
""",
    (
        Bench("cross-entropy, 8-15-15-4, radius 0.3", partial(later, lambda s: box(s, 8, 15, 15, 4, radius=0.3, loss=True), True), LATER),
        Bench(
            "cross-entropy, 8-12-12-12-4, radius 0.25",
            partial(later, lambda s: box(s, 8, 12, 12, 12, 4, radius=0.25, loss=True), True),
            LATER,
        ),
        Bench("scores, 6-12-10-3, 6 images", partial(later, lambda s: scores(s, 6, 12, 10, 3, images=6), True), LATER),
        Bench(
            "reduced, binary, 20-30-20-5, 40 images",
            partial(later, lambda s: scores(s, 20, 30, 20, 5, images=40, weight=3.0, **BINARY), False),
            LATER,
        ),
        Bench(
            "reduced, binary, pattern `upper`, 40-60-40-8, 100 images",
            partial(later, lambda s: scores(s, 40, 60, 40, 8, images=100, weight=2.0, pattern="upper", **BINARY), False),
            LATER,
        ),
    ),
)


@pytest.mark.bench
@pytest.mark.parametrize(
    ("section", "bench"), [(s, b) for s in (FIRST, EASY, ROWS) for b in s.benches], ids=lambda each: getattr(each, "name", "")
)
def test_search(section: Section, bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    assert set(found) == set(bench.unit)
    measured.setdefault(section, {})[bench.name] = found
    print(section.title, bench.name, found)
