"""A backend that breaks one clause of the contract fails the check of that clause."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from mipnet_highs import HiGHS
from mipnet_scip import SCIP, plugins

from mipnet.backend import Backend, Limits, OnEvent, Options, Outcome, Program, Session, Status
from mipnet.backend.checks import DEFAULT_LIMITS
from mipnet.errors import InputError
from mipnet.testing import backend_checks, check_backend, limits


class Bent(HiGHS):
    """HiGHS with a changed outcome, program or limits, or with ignored calls."""

    def __init__(
        self,
        outcome: Callable[[Program, Outcome], Outcome] = lambda p, o: o,
        program: Callable[[Program], Program] = lambda p: p,
        deaf: str = "",
        limits: Callable[[Limits], Limits] = lambda given: given,
        handler: Callable[[OnEvent | None], OnEvent | None] = lambda h: h,
    ) -> None:
        self.bend, self.program, self.deaf, self.limits, self.handler = outcome, program, deaf, limits, handler

    def open(self, program: Program, options: Options | None = None) -> Session:
        session = super().open(self.program(program), {} if self.deaf == "options" else options)
        solve = session.solve

        def bent(limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
            return self.bend(program, solve(self.limits(limits), self.handler(on_event)))

        session.solve = bent  # type: ignore[method-assign]
        if self.deaf and self.deaf != "options":
            setattr(session, self.deaf, lambda *given: None)
        return session


def zeros(p: Program, o: Outcome) -> Outcome:
    return replace(o, x=np.zeros(p.columns), objective=p.offset) if o.x is None else o


def keep_best_bound() -> Callable[[Program, Outcome], Outcome]:
    best = -math.inf

    def keep(p: Program, o: Outcome) -> Outcome:
        nonlocal best
        best = max(best, o.bound)
        return replace(o, bound=best if o.objective is None else min(best, o.objective))

    return keep


def too_early(p: Program, o: Outcome) -> Outcome:
    """Call a solve optimal whose bound is far from the objective: half of it away, whatever the solver has found."""
    return o if o.status is not Status.OPTIMAL or o.objective is None else replace(o, bound=o.objective - 0.5 * max(1.0, abs(o.objective)))


def swallow(handler: OnEvent | None) -> OnEvent | None:
    def quiet(event) -> None:
        with contextlib.suppress(Exception):
            handler(event)

    return handler and quiet


def backwards(handler: OnEvent | None) -> OnEvent | None:
    return handler and (lambda event: handler(replace(event, bound=event.bound and -1e6 * event.time)))


BROKEN = {
    "zeros for no point": (Bent(outcome=zeros), "time_limit_without_point"),
    "zeros when infeasible": (Bent(outcome=zeros), "infeasible_linear"),
    "1e20 for infinite": (Bent(outcome=lambda p, o: replace(o, bound=np.clip(o.bound, -1e20, 1e20))), "unbounded_linear"),
    "a bound too good": (Bent(outcome=lambda p, o: replace(o, bound=o.bound + 1)), "linear_program"),
    "no offset": (Bent(program=lambda p: replace(p, offset=0.0)), "linear_program"),
    "integers not rounded": (Bent(outcome=lambda p, o: replace(o, x=o.x + 1e-7)), "integer_optimum"),
    "integers taken for real": (Bent(program=lambda p: replace(p, integer=p.integer & False)), "integer_optimum"),
    "free columns cut at zero": (Bent(program=lambda p: replace(p, lower=np.maximum(p.lower, 0.0))), "no_rows"),
    "optimal too early": (Bent(outcome=too_early), "gap_limit"),
    "undecided": (
        Bent(outcome=lambda p, o: replace(o, status=Status.INFEASIBLE) if o.status is Status.UNBOUNDED else o),
        "unbounded_integer",
    ),
    "options ignored": (Bent(deaf="options"), "unknown_option"),
    "rows forgotten": (Bent(deaf="add_rows"), "added_rows"),
    "objective forgotten": (Bent(deaf="set_objective"), "changed_objective"),
    "bounds forgotten": (Bent(deaf="set_bounds"), "changed_bounds"),
    "start ignored": (Bent(deaf="start"), "start_accepted"),
    "suggestions ignored": (Bent(deaf="suggest"), "suggested_point"),
    "interrupt ignored": (Bent(deaf="interrupt", limits=lambda given: replace(given, time=min(given.time, 0.5))), "interrupt_from_thread"),
    "time limit too long": (Bent(outcome=lambda p, o: replace(o, runtime=o.runtime + 60.0)), "time_limit_without_point"),
    "node limit ignored": (Bent(limits=lambda given: replace(given, nodes=None, time=0.3)), "node_limit"),
    "the incumbent for a bound": (
        Bent(outcome=lambda p, o: o if o.objective is None else replace(o, bound=o.objective)),
        "bound_of_stopped_solve",
    ),
    "a bound kept from before": (Bent(outcome=keep_best_bound()), "bound_of_another_objective"),
    "targets ignored": (
        Bent(limits=lambda given: replace(given, objective_stop=None, bound_stop=None, time=min(given.time, 0.5))),
        "objective_stop",
    ),
    "exceptions swallowed": (Bent(handler=swallow, limits=lambda given: replace(given, time=min(given.time, 0.3))), "handler_raises"),
    "bounds that fall": (Bent(handler=backwards), "events_in_order"),
    "no events": (Bent(handler=lambda handler: None), "events_in_order"),
    "never closed": (Bent(deaf="close"), "closed_twice"),
}


@pytest.mark.parametrize(("backend", "clause"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_backend_is_found_out(backend: Bent, clause: str) -> None:
    with pytest.raises(AssertionError, match="contract: "):
        dict(backend_checks(backend))[clause]()


def test_a_time_limit_that_is_not_kept_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which every solve takes a minute; the time that the backend reports plays no part."""
    monkeypatch.setattr(limits, "perf_counter", itertools.count(step=60.0).__next__)
    with pytest.raises(AssertionError, match=r"contract: 0\.7 s for every solve \(this one took 60\.00 s\)"):
        dict(backend_checks(HiGHS()))["time_limit_each_solve"]()


class Forgetful(SCIP):
    """SCIP that ignores lazy rows."""

    def open(self, program: Program, options: Options | None = None) -> Session:
        session = super().open(program, options)
        session.lazy = lambda rows: None  # type: ignore[method-assign]
        return session


LAZY = ["lazy_optimum", "lazy_symmetry", "lazy_tangents"]


@pytest.mark.parametrize("clause", LAZY)
def test_lazy_rows_that_are_forgotten_are_found_out(clause: str) -> None:
    with pytest.raises(AssertionError, match="contract: "):
        dict(backend_checks(Forgetful()))[clause]()


@pytest.mark.parametrize("clause", LAZY)
def test_reductions_that_ignore_later_rows_are_found_out(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.LazyRowHandler, "conslock", lambda *given: None)
    monkeypatch.setattr(plugins, "LAZY_ROW_PARAMETERS", {})
    with pytest.raises(AssertionError, match="contract: "):
        dict(backend_checks(SCIP()))[clause]()


def test_all_failures_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mipnet.testing import backends

    some = [c for c in backends.BACKEND_CHECKS if c.name in {"linear_program", "no_rows", "closed_twice", "unknown_option"}]
    monkeypatch.setattr(backends, "BACKEND_CHECKS", some)
    check_backend(HiGHS())
    broken = Bent(outcome=lambda p, o: replace(o, bound=math.nan))
    with pytest.raises(AssertionError, match=r"`highs` breaks 2 clauses of the contract:\n  linear_program .*\n  no_rows "):
        check_backend(broken)


def test_a_class_is_not_a_backend() -> None:
    with pytest.raises(InputError, match="was given the class Backend as `backend`; expected a backend"):
        check_backend(Backend)  # type: ignore[arg-type]
