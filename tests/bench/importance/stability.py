"""Does the mask change when the images change?  Twenty-five masks of one network, each from images that no other has seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from statistics import mean
from typing import Any

import numpy as np
import xarray as xr

from mipnet.pruning.smaller.masks import random_masks
from mipnet.pruning.smaller.ranking import at_share
from tests.bench.importance.judge import commit
from tests.bench.importance.page import LABELS, Rows, spread, table
from tests.bench.importance.search import Case, Quick, Setting, solved

BATCHES = 25
SHARES = {"fc3": 0.6, "lenet5": 0.4}
WEIGHTS = {"fc3": 10.0, "lenet5": 5.0}
COUNTS = (10, 100, 500)


def jobs() -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured and kept, by name."""
    return {f"stability-{net}-{count}": partial(stability, net, count) for net in SHARES for count in COUNTS}


def stability(net: str, count: int, source: str = "fashion-mnist") -> dict[str, Any]:
    """Overlap and test accuracy of masks from batches of ``count`` images, all at one share, and of the mask of their mean scores."""
    case, share = Case(source, net, 0), SHARES[net]
    began = time.process_time()
    scores = [solved(case.network, *case.images(count, batch), Setting(count, 1, WEIGHTS[net])).scores for batch in range(BATCHES)]
    seconds = time.process_time() - began
    masks = [at_share(case.network, case.gates, one, share) for one in scores]
    test = Quick(case, *case.split.test)
    return {
        "source": source,
        "net": net,
        "images": count,
        "share": share,
        "overlap": overlap(masks),
        "chance": overlap([random_masks(one, seed) for seed, one in enumerate(masks)]),
        "always": _always(masks),
        "reference": test.reference,
        "accuracies": [test.accuracy(one) for one in masks],
        "joined": test.accuracy(at_share(case.network, case.gates, sum(scores) / len(scores), share)),
        "random": mean(test.accuracy(random_masks(one, seed)) for seed, one in enumerate(masks)),
        "seconds": seconds / BATCHES,
        "commit": commit(),
    }


def overlap(masks: Sequence[xr.Dataset]) -> float:
    """The mean over all pairs of the pruned units that both have, divided by those that either has."""
    gone = _gone(masks)
    return mean(float((one & other).sum() / (one | other).sum()) for one, other in combinations(gone, 2))


def section(rows: Rows) -> str:
    """The table of the page."""
    lines = [_line(row) for row in rows]
    heads = "masks | pruned (%) | overlap | by chance | in all | reference | masked | lowest | mean scores | random | seconds"
    return f"""## Does the mask change when the images change?

{BATCHES} masks of one network (seed 0), each computed from different images, at the same share of the parameters. *Overlap* is the
number of units that both of two masks prune, divided by the number that at least one of them prunes, mean over all pairs. *By chance*
is the same for random masks with the same number of units per layer. *In all* is, among the units that at least one mask prunes, the
share that all masks prune. Accuracy is measured on the test set in percent: *masked* is the mean and standard deviation over the
masks, *mean scores* is the mask computed from the mean of all scores, and *random* is the mean over the random masks. *Seconds* is the
time of one program.

{table(heads, lines)}"""


def _line(row: dict[str, Any]) -> str:
    cells = (
        f"{LABELS[row['source']]} {LABELS[row['net']]}, {row['images']} images",
        f"{100 * row['share']:.0f}",
        *(f"{row[key]:.2f}" for key in ("overlap", "chance", "always", "reference")),
        spread(row["accuracies"]),
        *(f"{value:.2f}" for value in (min(row["accuracies"]), row["joined"], row["random"])),
        f"{row['seconds']:.1f}",
    )
    return " | ".join(cells)


def _always(masks: Sequence[xr.Dataset]) -> float:
    """Of the units that some mask prunes the share that every mask prunes."""
    gone = _gone(masks)
    return float(gone.all(axis=0).sum() / gone.any(axis=0).sum())


def _gone(masks: Sequence[xr.Dataset]) -> np.ndarray:
    return np.array([np.concatenate([~kept.values for kept in one.values()]) for one in masks])
