"""Formulations of ReLU on small verification questions: how tight the relaxation is, nodes, and time, on both solvers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_data, read_network
from mipnet.arrays import Array
from mipnet.backend import get_backend
from mipnet.backend.rewrites import rewrite
from mipnet.solving.problem import Modelled
from tests.bench.registry import Bench, Row, Section

DIGITS = Path(__file__).parents[2] / "examples" / "digits.yaml"
IMAGES = 4
RADIUS = 0.12
SECONDS = 60.0
UNIT = {
    "variables": "",
    "rows": "",
    "gap closed": "%",
    "HiGHS nodes": "",
    "HiGHS": "s",
    "HiGHS decided": "",
    "SCIP nodes": "",
    "SCIP": "s",
    "SCIP decided": "",
}
NAMES: Mapping[str, Mapping[str, str | int]] = {
    "triangle": {"relu": "triangle"},
    "big-m": {"relu": "big-m"},
    "sos1": {"relu": "sos1"},
    "indicator": {"relu": "indicator"},
    "partition, 2 parts": {"relu": "partition", "parts": 2},
    "partition, 4 parts": {"relu": "partition", "parts": 4},
    "hull": {"relu": "hull"},
    "anderson": {"relu": "anderson"},
    "auto": {"relu": "auto"},
}


@cache
def questions() -> tuple[mn.Network, tuple[tuple[Array, int, int], ...]]:
    """The network, and for the first images of the test set that it gets right the label and the runner-up."""
    spec = load_spec(DIGITS)
    network = read_network(spec)
    _, _, test = read_data(spec, network)
    assert test is not None
    logits = network.forward(test.images)
    right = np.flatnonzero(logits.argmax(axis=1) == test.labels)[:IMAGES]
    return network, tuple((test.images[i : i + 1], int(test.labels[i]), int(np.argsort(logits[i])[-2])) for i in right)


def pose(image: Array, label: int, rival: int, formulation: Mapping[str, str | int]) -> mn.Encoding:
    """How far can the runner-up get ahead of the label, anywhere in the ball around the image?"""
    network, _ = questions()
    encoding = mn.encode(network, mn.LInf(image, RADIUS, lower=0, upper=1), formulation=formulation)
    output = encoding.output.isel(sample=0, drop=True)
    ahead = output.isel({output.dims[0]: rival}, drop=True) - output.isel({output.dims[0]: label}, drop=True)
    encoding.model.add_objective(ahead, sense="max")
    return encoding


def root(encoding: mn.Encoding) -> float:
    """The bound of the linear relaxation, with the ideal cuts of `anderson`."""
    problem, highs = Modelled.of(encoding), get_backend("highs")
    program = rewrite(problem.program, highs.features).program
    with highs.open(replace(program, integer=np.zeros(program.columns, dtype=bool))) as session:
        outcome = session.solve()
        for cuts in problem.tighteners:
            while outcome.x is not None and len(rows := cuts.separate(outcome.x, program.columns)):
                session.add_rows(rows)
                outcome = session.solve()
    return -outcome.bound


@cache
def ends(number: int) -> tuple[float, float]:
    """The bound of the triangle, and the optimum."""
    question = questions()[1][number]
    return root(pose(*question, NAMES["triangle"])), mn.solve(pose(*question, NAMES["big-m"]), mip_gap=1e-6).bound


def measured_row(name: str) -> Row:
    encodings = [pose(*question, NAMES[name]) for question in questions()[1]]
    shares = [(worst - root(e)) / (worst - best) for e, (worst, best) in ((e, ends(i)) for i, e in enumerate(encodings))]
    row: dict[str, float | None] = {
        "variables": int(np.mean([Modelled.of(e).program.columns for e in encodings])),
        "rows": int(np.mean([len(Modelled.of(e).program.rows) for e in encodings])),
        "gap closed": 100 * float(np.mean(shares)),
    }
    for backend, shown in (("highs", "HiGHS"), ("scip", "SCIP")):
        began = time.process_time()
        results = [mn.solve(e, backend, time_limit=SECONDS) for e in encodings]
        row[shown] = time.process_time() - began
        row[f"{shown} nodes"] = sum(r.nodes for r in results)
        row[f"{shown} decided"] = sum(r.status is mn.Status.OPTIMAL for r in results)
    return row


FORMULATIONS = Section(
    "Formulations of ReLU",
    f"""
The network of `examples/digits.yaml` (64-50-20-10, trained) and a ball of radius {RADIUS} in the maximum norm around each of {IMAGES}
test images. The objective is the largest margin: the output of the second-best class minus that of the right class. Bounds are those
of CROWN, presolve is on, the gap limit is 1e-4 and the time limit {SECONDS:.0f} seconds per solve. *Variables* and *rows* count those
of one program before a solver's rewrites. *Gap closed* is the share of the difference between the bound of the triangle and the
optimum that the linear relaxation closes. *Nodes* and CPU *seconds* are sums over the images, from one run. *Decided* counts the
solves that ended within the gap. `triangle` is a relaxation: its bound is proven, but its point may not be feasible. HiGHS supports
neither SOS1 sets nor indicator rows: they are rewritten as big-M.
""",
    tuple(Bench(name, partial(measured_row, name), UNIT) for name in NAMES),
)
SECTIONS = (FORMULATIONS,)


@pytest.mark.bench
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("bench", FORMULATIONS.benches, ids=lambda b: b.name)
def test_formulations(bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    row = bench.run()
    measured.setdefault(FORMULATIONS, {})[bench.name] = row
    assert row["gap closed"] is not None
    assert row["gap closed"] >= -1e-3
