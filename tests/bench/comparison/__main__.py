"""``make bench-comparison``: build and solve the dispatch in each library, try what each takes, and write docs/comparison.md."""

from __future__ import annotations

import _thread
import argparse
import inspect
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from textwrap import dedent
from typing import Any

import numpy as np
import torch

import mipnet as mn
from tests.bench.comparison import dispatch, requests
from tests.bench.comparison.dispatch import Hours, lines_for_the_network, surrogate
from tests.bench.measure import ROOT
from tests.bench.registry import where_measured

PAGE = ROOT / "docs" / "comparison.md"
PACKAGES = ("gurobi-machinelearning", "gurobipy", "pyscipopt-ml", "scikit-learn")
LIBRARIES = {"mipnet": dispatch.in_mipnet, "gurobi-machinelearning": dispatch.in_gurobi, "PySCIPOpt-ML": dispatch.in_pyscipopt}
WORDS = {"timelimit": "time limit", "gaplimit": "optimal"}
"""What SCIP's words for the end of a solve mean."""

NO_CUTS = {"separating/maxrounds": 0, "separating/maxroundsroot": 0}


@dataclass(frozen=True)
class Solved:
    """What a solve says, its CPU seconds, and the largest difference of an output from that of the network."""

    status: str
    objective: float | None
    bound: float
    seconds: float
    error: float | None


def by_mipnet(net: torch.nn.Module, hours: Hours, backend: str, limit: float) -> Solved:
    """Build and solve; the CPU time is that of the solve."""
    model, power = dispatch.in_mipnet(net, hours)
    began = time.process_time()
    with stopped_after(limit):
        found = mn.solve(model, backend)
    seconds = time.process_time() - began
    error = None if found.objective is None else power.error()
    status = "time limit" if found.status is mn.Status.INTERRUPTED else found.status.value
    return Solved(status, found.objective, found.bound, seconds, error)


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C after some CPU seconds: a limit of time on the clock would count what else runs on the machine."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    end, over = time.process_time() + seconds, threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if time.process_time() >= end:
                _thread.interrupt_main()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def by_pyscipopt(net: torch.nn.Module, hours: Hours, formulation: str, limit: float, parameters: Mapping[str, Any]) -> Solved:
    """Build and solve with SCIP's defaults, or with some parameters."""
    model, power = dispatch.in_pyscipopt(net, hours, formulation)
    model.setParams({"timing/clocktype": 1, "limits/time": limit, "limits/gap": 1e-4, **parameters})  # 1: CPU seconds
    began = time.process_time()
    model.optimize()
    seconds = time.process_time() - began
    if not model.getNSols():
        return Solved(WORDS.get(model.getStatus(), model.getStatus()), None, model.getDualbound(), seconds, None)
    x, y = (np.vectorize(model.getVal)(each).astype(float) for each in (power.input, power.output))
    with torch.no_grad():
        error = float(np.abs(net(torch.tensor(x)).numpy() - y).max())
    return Solved(WORDS.get(model.getStatus(), model.getStatus()), model.getObjVal(), model.getDualbound(), seconds, error)


def solves(net: torch.nn.Module, hours: Hours, limit: float) -> dict[str, Callable[[], Solved]]:
    """The solves by the name of their line."""
    scip = partial(by_pyscipopt, net, hours)
    return {
        "mipnet, HiGHS": partial(by_mipnet, net, hours, "highs", limit),
        "mipnet, SCIP": partial(by_mipnet, net, hours, "scip", limit),
        "PySCIPOpt-ML, SOS1 (its default)": partial(scip, "sos", limit, {}),
        "PySCIPOpt-ML, big-M": partial(scip, "bigm", limit, {}),
        "PySCIPOpt-ML, SOS1, no cut separation": partial(scip, "sos", limit, NO_CUTS),
        "PySCIPOpt-ML, big-M, no cut separation": partial(scip, "bigm", limit, NO_CUTS),
    }


def builds(net: torch.nn.Module, hours: Hours) -> dict[str, Callable[[], object]]:
    """The builds by the name of their line."""
    return {
        "mipnet": partial(dispatch.in_mipnet, net, hours),
        "gurobi-machinelearning": partial(dispatch.in_gurobi, net, hours),
        "PySCIPOpt-ML, SOS1": partial(dispatch.in_pyscipopt, net, hours, "sos"),
        "PySCIPOpt-ML, big-M": partial(dispatch.in_pyscipopt, net, hours, "bigm"),
    }


def seconds_of(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each action in turn; a first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            began = time.process_time()
            kept = action()
            if number:
                found[name].append(time.process_time() - began)
            del kept
    return found


def spread(seconds: list[float]) -> str:
    """The median, with the smallest and the largest value."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def solved_row(name: str, runs: list[Solved]) -> str:
    """One line of the table of solves."""
    objectives = [run.objective for run in runs if run.objective is not None]
    gaps = [(run.objective - run.bound) / abs(run.objective) for run in runs if run.objective is not None]
    errors = [run.error for run in runs if run.error is not None]
    cells = (
        ", ".join(dict.fromkeys(run.status for run in runs)),
        f"{min(objectives):.3f}" if objectives else "no point",
        f"{100 * max(gaps):.2f} %" if gaps else "-",
        spread([run.seconds for run in runs]),
        f"{max(errors):.0e}" if errors else "-",
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def code_of(function: Callable[..., Any]) -> str:
    """The lines for the network."""
    source = inspect.getsource(function).partition("# begin\n")[2].partition("    # end")[0]
    return f"```py\n{dedent(source).strip()}\n```"


def refused_solve(net: torch.nn.Module, hours: Hours) -> str:
    """What gurobipy says to the model without a licence."""
    model, _ = dispatch.in_gurobi(net, hours)
    size = f"{model.NumVars:,} variables, {model.NumConstrs:,} rows and {model.NumGenConstrs:,} general constraints"
    try:
        model.optimize()
    except Exception as error:
        return (
            f"The model of gurobi-machinelearning has {size}. It is built and not solved here: gurobipy without a licence says *{error}*."
        )
    return f"The model of gurobi-machinelearning has {size}."


def page(given: argparse.Namespace) -> str:
    """Measure everything, and return the page."""
    net, hours = surrogate(), Hours.of(given.hours)
    asked = {
        name: requests.answers(make())
        for name, make in zip(LIBRARIES, (requests.of_mipnet, requests.of_gurobi, requests.of_pyscipopt), strict=True)
    }
    built = seconds_of(builds(net, hours), given.rounds)
    runs: dict[str, list[Solved]] = {}
    for _ in range(given.solves):
        for name, action in solves(net, hours, given.seconds).items():
            runs.setdefault(name, []).append(action())
            print(name, runs[name][-1], flush=True)
    code = "\n\n".join(
        f"**{name}**, {lines_for_the_network(function)} lines:\n\n{code_of(function)}" for name, function in LIBRARIES.items()
    )
    taken = [f"| {request} | " + " | ".join(asked[name][request] for name in LIBRARIES) + " |" for request in asked["mipnet"]]
    return f"""# Compared with other libraries

This page is written by `make bench-comparison`. The same dispatch model is written with three libraries that put a trained network into
an optimisation model: {given.hours} hours, three heat plants whose electricity a 4-16-16-1 ReLU network predicts from heat, temperature,
supply temperature and age. Heat and supply temperature are variables, the rest is known; each hour has a heat demand, a lowest supply
temperature and a price. The whole programs are in `tests/bench/comparison/dispatch.py`, each in the form that its library's own examples
have.

## The lines for the network

{code}

## What each takes

A request is tried with the installed versions; a refusal is shown with its first words.

| | {" | ".join(LIBRARIES)} |
|---|{"---|" * len(LIBRARIES)}
{chr(10).join(taken)}

An input without bounds is an error in mipnet on purpose: a bound of the network's values is needed for a correct big-M, and the message
names the input.

gurobi-machinelearning needs Gurobi, and PySCIPOpt-ML needs SCIP; mipnet has HiGHS and SCIP, and others through [linopy](solvers.md).

## Build

CPU seconds from the known data to the model: the median of {given.rounds} builds in turn, with the smallest and the largest. mipnet
computes bounds of every neuron here, gurobi-machinelearning leaves that to Gurobi.

| | CPU s |
|---|---|
{chr(10).join(f"| {name} | {spread(seconds)} |" for name, seconds in built.items())}

{refused_solve(net, hours)}

{solved_section(given, runs)}
{where_measured(PACKAGES)}
"""


def solved_section(given: argparse.Namespace, runs: Mapping[str, list[Solved]]) -> str:
    """The table of solves with what is said above it; nothing without solves."""
    if not runs:
        return ""
    return f"""## Solve

At most {given.seconds:g} CPU seconds and a gap of 0.01 %, with each library's defaults and, for PySCIPOpt-ML, without cut separation too,
which is a default of mipnet for networks in a model. The gap is the largest of {given.solves} {"solve" if given.solves == 1 else "solves"}.
*Error* is the largest difference between an output in the solution and the network at the inputs there.

| | status | best objective | gap | CPU s | error |
|---|---|---:|---:|---:|---:|
{chr(10).join(solved_row(name, each) for name, each in runs.items())}
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.comparison", description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each solve")
    parser.add_argument("--rounds", type=int, default=5, help="builds of each library")
    parser.add_argument("--solves", type=int, default=3, help="solves of each library; 0 for a page without them")
    parser.add_argument("--print", action="store_true", help="print the page, and do not write it")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    text = page(given)
    if given.print:
        print(text)
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
