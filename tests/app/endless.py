"""`mipnet solve` of a run that is decoupled by class, with programs that never end: ``python -m tests.app.endless COUNT WORDS...``.

The first ``COUNT`` programs are those of the run.  Each later one is a search that no solver finishes, or in a worker of
dask.distributed, where that would only take time from other tests, a wait until the worker is closed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.limits.deadline import TimeLimit
from mipnet.pruning.importance import by_class
from tests.nets import dense

BEGINS = "an endless program begins in process"


@dataclass(frozen=True)
class Endless:
    """A question with the labels of one class, whose program is never solved."""

    labels: np.ndarray

    def pose(self, *, time_limit: TimeLimit = None) -> mn.Encoding:
        """The largest sum of the outputs of a random network over a large box; a line says when its search begins."""
        wait_in_worker()
        g = np.random.default_rng(0)
        layers = [(f"fc{k}", dense(g, 60, 30 if k == 0 else 60)) for k in range(4)]
        network = mn.Network.build((30,), [part for name, layer in layers for part in ((name, layer), (f"relu{name}", mn.ReLU()))])
        encoding = mn.encode(network, mn.LInf(np.zeros((1, 30)), 1.0))
        encoding.model.add_objective(encoding.output.sum(), sense="max")
        print(BEGINS, os.getpid(), file=sys.stderr, flush=True)
        return encoding


def wait_in_worker() -> None:
    """In a worker of dask.distributed, wait until it is closed."""
    from distributed import Status, get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    print(BEGINS, os.getpid(), file=sys.stderr, flush=True)
    while worker.status is Status.running:
        time.sleep(0.02)
    raise RuntimeError("the worker is closed")


def run_some(programs: Mapping[int, Callable[[], Any]], *, count: int, **how: Any) -> Any:
    """Run the first ``count`` programs as they are, and the others with an endless question."""
    late = {key: partial(program.func, key, Endless(program.args[1].labels), *program.args[2:]) for key, program in programs.items()}
    first = dict(list(programs.items())[:count])
    return run_all(late | first, **how)


run_all = by_class.run_all

if __name__ == "__main__":
    by_class.run_all = partial(run_some, count=int(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
