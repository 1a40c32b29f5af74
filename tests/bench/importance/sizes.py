"""Time and memory against the number of images, and the reduced program against the published one in full."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import mipnet as mn
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance
from tests.bench.importance.judge import commit
from tests.bench.importance.search import FROZEN, Case, Setting, solved
from tests.bench.measure import ROOT, peak

COUNTS = (10, 30, 100, 300, 1000)
LIMIT = 90.0
REPEATS = 3
WEIGHT, EPSILON = 5.0, 1e-5
"""Of the published run scripts."""


def scaling() -> list[dict[str, Any]]:
    """LeNet-5 on Fashion-MNIST with more and more images, each in a process of its own."""
    return [_apart(count) for count in COUNTS]


def _apart(count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.importance", "--scale", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scale(count: int) -> dict[str, Any]:
    """CPU seconds to pose and solve, and by how many bytes the process grew at most."""
    case = Case("fashion-mnist", "lenet5", 0)
    network, seen = case.network, case.images(count)
    kept: list[Any] = []
    began = time.process_time()
    grown = peak(lambda: kept.append(solved(network, *seen, Setting(count, 1, 5.0))))
    spent = time.process_time() - began
    result = kept[0].result
    return {
        "images": count,
        "seconds": spent,
        "peak": grown,
        "cuts": result.cuts,
        "rounds": result.rounds,
        "status": result.status.value,
        "commit": commit(),
    }


def slope(rows: list[dict[str, Any]]) -> float:
    """The exponent of time against images, fitted to the logarithms."""
    images, seconds = (np.log([row[key] for row in rows]) for key in ("images", "seconds"))
    return float(np.polyfit(images, seconds, 1)[0])


def published() -> dict[str, dict[str, Any]]:
    """FC-3 with 10 images under the published constraints: in reduced space, in full, and in full through cvxpy."""
    from tests.bench.importance.conic import solve_conic  # cvxpy comes with the extra `bench` only

    case = Case("fashion-mnist", "fc3", 0)
    rows = [(name, _posed(case, formulation)) for _ in range(REPEATS) for name, formulation in (("reduced", FROZEN), ("full", None))]
    rows.append(("conic", solve_conic(case.network, *case.images(10), WEIGHT, EPSILON)))
    least = sorted(rows, key=lambda row: -row[1]["build"] - row[1]["solve"])
    return dict(sorted(least, key=lambda row: row[0], reverse=True))


def _posed(case: Case, formulation: Mapping[str, str] | None) -> dict[str, Any]:
    network, (images, labels) = case.network, case.images(10)
    began = time.process_time()
    task = Importance(network, images, labels, Objective(WEIGHT), formulation=formulation, bounds=PaperBounds("paper", EPSILON))
    posed = task.pose()
    built = time.process_time()
    result = mn.solve(posed, time_limit=LIMIT)
    row = {"build": built - began, "solve": time.process_time() - built, "objective": result.objective, "bound": result.bound}
    return row | {
        "status": result.status.value,
        "commit": commit(),
        **{key: result.size[key] for key in ("rows", "columns")},
        "cuts": result.cuts,
    }
