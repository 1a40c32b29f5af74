"""What the stepwise masks depend on: how many images, which, whose labels, and whether a solver betters the search."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mipnet.model.losses import Loss
from mipnet.pruning.stepwise.pruning_path import prune_stepwise
from mipnet.readers.data import Dataset, select
from tests.bench.importance.judge import commit
from tests.bench.importance.page import Rows, table
from tests.bench.importance.search import Case, Quick

SHARES = (0.5, 0.6, 0.7)
STEPS = tuple(np.round(np.arange(0.3, 0.701, 0.025), 3).tolist())
TRIALS: dict[str, dict[str, Any]] = {
    **{f"{count}": {"count": count} for count in (100, 300, 1000, 3000, 10000, 30000)},
    **{f"{count}-soft": {"count": count, "hard": 0.0} for count in (100, 1000, 10000)},
    **{f"{count}-half": {"count": count, "hard": 0.5} for count in (100, 1000, 10000)},
    **{f"1000-{pick}": {"count": 1000, "pick": pick} for pick in ("confident", "uncertain")},
    **{f"10000-{name}": {"count": 10000, "backend": name} for name in ("highs", "scip")},
}
SECONDS = 5.0
"""What a solver gets for each step."""


def jobs() -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured and kept, by name."""
    return {f"choice-{name}": partial(trial, **options) for name, options in TRIALS.items()}


def trial(count: int, pick: str = "random", hard: float = 1.0, backend: str | None = None) -> dict[str, Any]:
    """Points lost on the images put aside, at each of `SHARES`, and how often the solver changed the search's masks for better ones."""
    case = Case("fashion-mnist", "fc3", 0)
    images, labels = _images(case, count, pick)
    began = time.process_time()
    path = prune_stepwise(case.network, images, labels, shares=STEPS, hard=hard, backend=backend, time_limit=SECONDS)
    seconds = time.process_time() - began
    quick = Quick(case, *case.split.choose)
    results = [step.result for step in path.steps if step.result is not None]
    return {
        "images": count,
        "pick": pick,
        "hard": hard,
        "backend": backend or "none",
        "lost": [quick.reference - quick.accuracy(path.at(share - 0.01).masks) for share in SHARES],
        "seconds": seconds,
        "steps": len(path.steps),
        "bettered": sum(sum(event.kind == "incumbent" for event in one.trace) > 1 for one in results),
        "optimal": sum(one.status.value == "optimal" for one in results),
        "commit": commit(),
    }


def _images(case: Case, count: int, pick: str) -> tuple[np.ndarray, np.ndarray]:
    if pick == "random":
        return case.images(count)
    known = Dataset(*case.split.train, "train", 10)
    own = np.exp(-Loss().values(case.network.forward(known.images), known.labels))
    chosen = select(known, per_class=count // 10, pick=pick, scores=own)
    return chosen.images, chosen.labels


def section(rows: Rows) -> str:
    """The table of the page."""
    solved = [row for row in rows if row["backend"] != "none"]
    solvers = "; ".join(
        f"{row['backend']} improved {row['bettered']} of {row['steps']} steps and proved {row['optimal']} optimal" for row in solved
    )
    heads = "images | which | hard labels (%) | solver | " + " | ".join(f"lost at {100 * share:.0f} %" for share in SHARES) + " | seconds"
    return f"""## What stepwise masks depend on

FC-3 on Fashion-MNIST, seed 0: points of accuracy lost **on the validation images** with three shares of the parameters pruned. *Which*
is the choice of the images, with the same number per class: at random, or those whose true class has the largest (confident) or
smallest (uncertain) probability in the network. *Hard labels* is the weight of the true classes in the targets of the loss; the
remaining weight is on the class probabilities of the network. *Solver* had {SECONDS:g} seconds per step to improve the masks of the
local search: {solvers}.

{table(heads, [_line(row) for row in rows])}"""


def _line(row: dict[str, Any]) -> str:
    lost = [f"{points:.2f}" for points in row["lost"]]
    return " | ".join([f"{row['images']:,}", row["pick"], f"{100 * row['hard']:.0f}", row["backend"], *lost, f"{row['seconds']:.1f}"])
