"""mipnet beside other tools: how long one network takes to build, and how long the same questions take on the same solver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest

import mipnet as mn
from mipnet.arrays import Array
from mipnet.backend import get_backend
from mipnet.model.to_program import from_model
from mipnet.readers.vnnlib import read_vnnlib
from tests.bench import peers
from tests.bench.measure import cpu_times
from tests.bench.peers import Answer, Question, Weights, answered
from tests.bench.registry import Bench, Row, Section
from tests.bench.vnncomp import ROOT, mnist_fc

SIZES = (784, 1000, 1000, 10)
BUILD = {"time": "s", "mipnet": "times faster"}
DECIDE = {"build": "s", "solve": "s", "total": "s", "decided": "of 6", "mipnet": "times faster"}
SECONDS = 60.0
INSTANCES = {(4, 0.03): "unsat", (6, 0.03): "unsat", (8, 0.03): "unsat", (12, 0.03): "sat", (9, 0.05): "unsat", (11, 0.05): "unsat"}
"""Number and epsilon of each property, and what the tools of VNN-COMP 2022 agree on."""
PACKAGES = ("gurobi-machinelearning", "gurobipy", "cvxpy", "pyscipopt-ml", "omlt", "pyomo")


@cache
def network() -> tuple[Weights, Array, Array]:
    """Random weights, and a box of radius 0.1."""
    g = np.random.default_rng(0)
    weights = [(g.normal(size=(after, before)) / np.sqrt(before), g.normal(size=after) * 0.3) for before, after in pairwise(SIZES)]
    x = g.uniform(size=SIZES[0])
    return weights, np.clip(x - 0.1, 0, 1), np.clip(x + 0.1, 0, 1)


def written(weights: Weights, *more: tuple[str, mn.Layer]) -> mn.Network:
    layers: list[tuple[str, mn.Layer]] = []
    for i, (weight, bias) in enumerate(weights, start=1):
        layers += [(f"fc{i}", mn.Dense(weight, bias)), (f"relu{i}", mn.ReLU())]
    return mn.Network.build(weights[0][0].shape[1:], [*layers[:-1], *more])


def build_mipnet(bounds: str, backend: str) -> Callable[[], object]:
    weights, lower, upper = network()
    net, box = written(weights), mn.Box(lower[None], upper[None])
    return lambda: get_backend(backend).open(from_model(mn.encode(net, box, bounds=bounds).model))


def build_peer(name: str) -> Callable[[], object]:
    weights, lower, upper = network()
    module, graph = peers.torch_sequential(weights), peers.onnx_model(weights)
    return {
        "gurobi": partial(peers.build_gurobi, module, lower, upper),
        "cvxpy": partial(peers.build_cvxpy, weights, lower, upper),
        "sos": partial(peers.build_pyscipopt_ml, module, lower, upper),
        "bigm": partial(peers.build_pyscipopt_ml, module, lower, upper, "bigm"),
        "omlt": lambda: peers.in_highs(peers.build_omlt(graph, lower, upper)),
    }[name]


def needs(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"there is no `{module}`; `pip install mipnet[peers]` brings the tools that are compared")
    logging.getLogger("pyomo").setLevel(logging.ERROR)  # it remarks on every input that 0 is outside of its bounds


def build_row(build: Callable[[], Callable[[], object]], modules: tuple[str, ...], backend: str | None, rounds: int) -> Row:
    """Beside it, in turn, mipnet with interval bounds, up to the same solver."""
    needs(*modules)
    if backend is None:
        (seconds,) = cpu_times(build(), rounds=rounds)
        return {"time": seconds, "mipnet": None}
    theirs, ours = cpu_times(build(), build_mipnet("interval", backend), rounds=rounds)
    return {"time": theirs, "mipnet": theirs / ours}


def builds() -> tuple[Bench, ...]:
    own = [
        (f"mipnet, {shown} bounds, into {solver}", partial(build_mipnet, bounds, backend), (), None, 5)
        for shown, bounds in (("interval", "interval"), ("CROWN", "crown"))
        for solver, backend in (("HiGHS", "highs"), ("SCIP", "scip"))
    ]
    others = [
        ("gurobi-machinelearning", "gurobi", ("gurobipy", "gurobi_ml"), "highs", 5),
        ("cvxpy, big-M by hand", "cvxpy", ("cvxpy",), "highs", 3),
        ("PySCIPOpt-ML, SOS1", "sos", ("pyscipopt_ml",), "scip", 1),
        ("PySCIPOpt-ML, big-M", "bigm", ("pyscipopt_ml",), "scip", 1),
        ("OMLT, into HiGHS", "omlt", ("omlt", "onnx", "pyomo"), "highs", 1),
    ]
    rows = [*own, *((name, partial(build_peer, peer), *rest) for name, peer, *rest in others)]
    return tuple(Bench(name, partial(build_row, *rest), BUILD) for name, *rest in rows)


@cache
def question(number: int, epsilon: float) -> Question:
    net = mnist_fc(2)
    path = ROOT / "vnncomp" / "mnist_fc" / "vnnlib" / f"prop_{number}_{epsilon}.vnnlib"
    (case,) = read_vnnlib(path).cases
    weights = [(w["weight"].numpy(), w["bias"].numpy()) for n in net.nodes if (w := n.layer.weights())]
    (label,) = np.flatnonzero(case.clauses[0].matrix[0] > 0)  # each clause says y_label - y_k <= 0
    return Question(weights, case.region.lower[0], case.region.upper[0], int(label))


def decide_mipnet(question: Question, backend: str, relu: str) -> Answer:
    """Class by class on an open problem, the likeliest first, each with ``y_k - y_label >= 0`` as a bound and to the first such point."""

    def build() -> tuple[mn.OpenProblem, mn.Encoding]:
        eye = np.eye(len(question.weights[-1][1]))
        ahead = mn.Dense(eye[question.others] - eye[question.label])
        net, box = written(question.weights, ("ahead", ahead)), mn.Box(question.lower[None], question.upper[None])
        encoding = mn.encode(net, box, formulation={"relu": relu}, bounds="alpha")
        return mn.open_problem(encoding, backend), encoding

    def solve(built: tuple[mn.OpenProblem, mn.Encoding]) -> str:
        problem, encoding = built
        end = time.perf_counter() + SECONDS
        lower, upper = encoding.output.lower.values, encoding.output.upper.values
        with problem:
            for k in np.argsort(-upper[0]):
                if upper[0, k] < 0:
                    return "unsat"  # and so are all that come later
                problem.set_bounds(encoding.output, lower=np.where(np.arange(upper.size) == k, 0.0, lower))
                problem.set_objective(encoding.output.isel(sample=0, ahead_unit=int(k), drop=True), sense="max")
                limits = mn.Limits(time=max(0.0, end - time.perf_counter()), bound_stop=-1e-9, objective_stop=0.0)
                result = problem.solve(limits=limits)
                if result.objective is not None and result.objective >= 0:
                    return "sat" if result.verified else "not verified"
                if result.status is not mn.Status.INFEASIBLE and not result.bound < 0:
                    return "time limit"
        return "unsat"

    return answered(build, solve)


def decide_omlt(question: Question) -> Answer:
    needs("omlt", "pyomo", "onnx")
    return peers.decide_omlt(question, peers.onnx_model(question.weights), SECONDS)


def decide_pyscipopt_ml(question: Question) -> Answer:
    needs("pyscipopt_ml")
    return peers.decide_pyscipopt_ml(question, peers.torch_sequential(question.weights), SECONDS, "sos")


TOOLS: dict[str, tuple[Callable[[Question], Answer], str | None]] = {
    "mipnet on HiGHS": (partial(decide_mipnet, backend="highs", relu="big-m"), None),
    "OMLT on HiGHS": (decide_omlt, "mipnet on HiGHS"),
    "mipnet on SCIP": (partial(decide_mipnet, backend="scip", relu="sos1"), None),
    "PySCIPOpt-ML on SCIP": (decide_pyscipopt_ml, "mipnet on SCIP"),
}


@cache
def answers(tool: str) -> tuple[Answer, ...]:
    found = tuple(TOOLS[tool][0](question(*instance)) for instance in INSTANCES)
    for instance, answer in zip(INSTANCES, found, strict=True):
        print(tool, instance, answer)
        assert answer.verdict in (INSTANCES[instance], "time limit"), (tool, instance, answer)
    return found


def total(tool: str) -> float:
    return sum(answer.build + answer.solve for answer in answers(tool))


def decide_row(tool: str) -> Row:
    beside = TOOLS[tool][1]
    return {
        "build": sum(answer.build for answer in answers(tool)),
        "solve": sum(answer.solve for answer in answers(tool)),
        "total": total(tool),
        "decided": sum(answer.verdict != "time limit" for answer in answers(tool)),
        "mipnet": None if beside is None else total(tool) / total(beside),
    }


BUILDS = Section(
    "Comparison with other tools: building 784-1000-1000-10",
    """
One box of radius 0.1, and random weights. The time starts with the network in the form that each tool reads (arrays, a torch module,
an ONNX graph) and ends before the solve. mipnet and OMLT have then passed the program to a solver, PySCIPOpt-ML writes into SCIP from
the start, gurobi-machinelearning ends with Gurobi's `update`, and cvxpy with the arrays for HiGHS. gurobi-machinelearning computes no
bounds and writes one general constraint per neuron; all others compute interval bounds. The last column says how many times faster
mipnet is with interval bounds; the two were alternated, with SCIP as the solver for PySCIPOpt-ML and HiGHS for the others. By default,
mipnet uses CROWN bounds. The tools that take seconds were measured once, cvxpy three times.
""",
    builds(),
    PACKAGES,
)
DECISIONS = Section(
    "Comparison with other tools: six properties of mnist_fc 256x2",
    f"""
The properties 4, 6, 8, 12 with epsilon 0.03 and 9, 11 with epsilon 0.05 of VNN-COMP: can the output of another class exceed that of
the label within the ball? Each tool has {SECONDS:.0f} seconds of solving per property. Times are CPU seconds of one run, summed over
the six properties. A property is decided if the tool answered in time; every answer agreed with that of the competition.

*mipnet* adds a last layer of differences `y_k - y_label` and computes alpha-CROWN bounds. For each class that the bounds do not
decide, it solves one program on an open problem, with the difference as objective and 0 as its lower bound, until it finds a point or
proves that there is none. It uses big-M on HiGHS and SOS1 on SCIP. *OMLT* and *PySCIPOpt-ML* solve one program without an objective,
with one binary per other class. Exactly one binary is 1, and it implies `y_k >= y_label`. OMLT uses big-M through Pyomo's persistent
interface of HiGHS, PySCIPOpt-ML its default formulation (SOS1); both use the interval bounds that they compute. Solver options are the
defaults, with one thread. The 60 seconds are CPU time for SCIP under PySCIPOpt-ML and wall-clock time for all others. On a busy
machine, a tool that reaches a wall-clock limit has used less CPU time, so its total is smaller.
""",
    tuple(Bench(tool, partial(decide_row, tool), DECIDE) for tool in TOOLS),
    PACKAGES,
)


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("section", "bench"), [(s, b) for s in (BUILDS, DECISIONS) for b in s.benches], ids=lambda item: getattr(item, "name", "")
)
def test_peers(section: Section, bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    assert set(found) == set(bench.unit)
    measured.setdefault(section, {})[bench.name] = found
    print(section.title, bench.name, found)
