"""A solve within a memory limit: programs that do not fit are refused, and a search that grows beyond it keeps what it has found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import mipnet as mn
from mipnet.backend import Event, Limits, Status, get_backend
from mipnet.errors import MemoryLimitReached
from mipnet.limits import memory
from mipnet.solving.problem import Modelled
from tests.limits.room import room
from tests.model.test_encoding_size import wide
from tests.nets import dense


def problem(samples: int = 4) -> mn.Encoding:
    network, region = wide(samples)
    encoding = mn.encode(network, region, bounds="interval")
    encoding.model.add_objective(encoding.output.sum())
    return encoding


def test_arrays_that_do_not_fit_are_refused() -> None:
    encoding = problem()
    said = r"^the arrays of the program \(.* rows, .* columns, .* nonzeros\) would take about .* MB; the memory limit is .*: write a"
    with room(10e6), pytest.raises(MemoryLimitReached, match=said):
        mn.solve(encoding)


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_a_program_that_does_not_fit_into_the_solver_is_refused(backend: str) -> None:
    posed = Modelled.of(problem())
    said = rf"^the program in {backend} \(.* nonzeros\) would take about .* MB; .*: write a smaller program, such as one of fewer samples"
    with room(20e6), pytest.raises(MemoryLimitReached, match=said):
        mn.solve(posed, backend)


def hard() -> mn.Encoding:
    g = np.random.default_rng(0)
    layers = [("fc1", dense(g, 30, 12)), ("act1", mn.ReLU()), ("fc2", dense(g, 30, 30)), ("act2", mn.ReLU()), ("fc3", dense(g, 1, 30))]
    encoding = mn.encode(mn.Network.build((12,), layers), mn.LInf(g.random((1, 12)), 2.0))
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    return encoding


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_a_search_that_outgrows_the_limit_ends_with_what_it_found(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree grows slowly, so the first event with a point and a bound stands for one that has grown."""
    monkeypatch.setattr(memory, "WATCH_SECONDS", 0.0)
    taken: list[Event] = []

    def take(event: Event) -> None:
        if event.bound is not None and event.objective is not None and not taken:
            taken.append(event)
            told.used += 80e6

    encoding = hard()
    with room(60e6) as told:
        result = mn.solve(encoding, backend, limits=Limits(gap=0.0, time=60), on_event=take)
    assert taken
    assert result.status is Status.MEMORY_LIMIT
    assert result.verified
    assert result.objective is not None
    assert result.objective < result.bound < np.inf


@pytest.mark.sweep
def test_the_watch_knows_the_limit_of_the_thread_that_began_the_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WATCH_SECONDS", 0.0)
    watches: list[memory.MemoryWatch] = []
    begin: Callable[..., None] = memory.MemoryWatch.__init__

    def record(self: memory.MemoryWatch) -> None:
        begin(self)
        watches.append(self)

    monkeypatch.setattr(memory.MemoryWatch, "__init__", record)
    posed = Modelled.of(hard())
    with room(1e9) as told, get_backend("highs").open(posed.program) as session:
        session.solve(Limits(nodes=1))
        mn.solve(posed, limits=Limits(nodes=1))
    assert all(watch._allowed == told.used + 1e9 for watch in watches)
    assert len(watches) > 2


@pytest.mark.parametrize("method", ["lp", "mip"])
def test_bounds_of_a_layer_whose_program_does_not_fit_are_kept_and_named(method: str) -> None:
    network, region = wide(1)
    start = mn.propagate(network, region, method="interval")
    with room(4e6):
        found = mn.tighten(network, region, method=method, start=start)  # type: ignore[arg-type]
    assert not found.stopped
    kept = [text for text in found.warnings if text.startswith("`fc3` keeps looser bounds: the program of the network on one sample (")]
    assert len(kept) == 1
    assert float(found.after["fc3"].width.max()) <= float(start.after["fc3"].width.max())


def test_tightening_that_the_time_ended_says_so() -> None:
    network, region = wide(1)
    start = mn.propagate(network, region, method="interval")
    assert mn.tighten(network, region, method="lp", start=start, time_limit=1e-3).warnings == (
        "the time limit ended before all bounds were computed: they hold, and some are looser than `lp` gives",
    )
    small = mn.Network.build(
        (3,), [("fc1", dense(np.random.default_rng(0), 4, 3)), ("act1", mn.ReLU()), ("fc2", mn.Dense(np.ones((1, 4))))]
    )
    assert mn.tighten(small, mn.LInf(np.zeros((1, 3)), 1.0), time_limit=None).warnings == ()
