"""The forward pass as a start: the logs of both solvers report it, and every solve, even without a node, ends with a point."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

import mipnet as mn
from mipnet.model.losses import Loss, add_loss
from tests.nets import FAMILIES, dense, make
from tests.pruning.importance.questions import ask
from tests.sweep import in_turn

BACKENDS = ("highs", "scip")
SAYS = {
    "scip": re.compile(r"1/1 feasible solution given by solution candidate storage, new primal bound (\S+)"),
}
"""The line in a solver's log about an accepted start, with its objective; HiGHS has none for a start that comes after presolve."""


def mlp(*widths, seed=0):
    g = np.random.default_rng(seed)
    parts = [(f"fc{i}", dense(g, m, n)) for i, (n, m) in enumerate(pairwise(widths))]
    layers = [part for i, fc in enumerate(parts) for part in (fc, (f"r{i}", mn.ReLU()))]
    return mn.Network.build((widths[0],), layers[:-1]), g


def verification(network, g, radius, *, loss=False):
    encoding = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, *network.input_shape)), radius))
    encoding.model.add_objective(1.0 * (add_loss(encoding, [0], Loss()) if loss else encoding.output.sum()))
    return encoding


def importance(network, g, images, **options):
    x = g.uniform(0, 1, (images, *network.input_shape))
    return ask(network, x, network.forward(x).argmax(axis=1), bounds="sound", **options).pose()


PROGRAMS = {
    **{f"{family.__name__}-{seed}": lambda f=family, s=seed: verification(*make(f, s), 0.3) for family in FAMILIES[:5] for seed in (0, 3)},
    "loss": lambda: verification(*mlp(6, 10, 8, 3), 0.3, loss=True),
    "scores": lambda: importance(*mlp(6, 8, 6, 3), 3),
    "all-layers": lambda: importance(*mlp(5, 6, 6, 4, 3, seed=1), 3, layers="all", weight=10.0),
    "margin": lambda: importance(*mlp(6, 6, 5, 3, seed=2), 3, loss=Loss("margin")),
    "masks": lambda: importance(*mlp(6, 8, 6, 3, seed=3), 3, kind="binary"),
    "wide-box": lambda: verification(*mlp(20, 30, 30, 30, 4), 0.5),
    "deep-box": lambda: verification(*mlp(12, *[16] * 6, 3), 0.5, loss=True),
    "digits-box": lambda: verification(*mlp(784, 64, 64, 64, 10), 0.05),
    "digits-scores": lambda: importance(*mlp(64, 50, 20, 10), 10),
    "digits-masks": lambda: importance(*mlp(64, 50, 20, 10, seed=1), 10, kind="binary"),
}
"""Twenty problems: boxes and scores, sums and losses, from six variables to the size of digits, whose root takes seconds."""


def forward(encoding):
    """The objective at the forward pass without a search, computed by the network if it is a sum of outputs."""
    return encoding.network.forward(encoding.region.centre).sum()


@pytest.mark.parametrize(("name", "backend"), in_turn(PROGRAMS, BACKENDS))
def test_a_solve_without_a_node_ends_with_a_point_and_the_log_says_that_the_start_is_taken(name, backend):
    encoding, lines, incumbents = PROGRAMS[name](), [], []

    def hear(event):
        if event.kind == "log":
            lines.append(event.text)
        elif event.kind == "incumbent":
            incumbents.append(event.objective)

    result = mn.solve(encoding, backend, limits=mn.Limits(nodes=0), on_event=hear)
    assert result.x is not None
    assert result.verified
    assert result.bound <= result.objective + 1e-6
    if backend in SAYS:
        found = [float(match[1]) for match in map(SAYS[backend].search, lines) if match]
        assert found, [line for line in lines if "start" in line or "feasible" in line]
    else:
        found = incumbents
    assert result.start_accepted
    assert found[0] >= result.objective - 1e-4
    if not encoding.scores and "loss" not in name and name != "deep-box":
        assert found[0] == pytest.approx(forward(encoding), rel=1e-5)


def test_there_are_twenty_programs():
    assert len(PROGRAMS) == 20
