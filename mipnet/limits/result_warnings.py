"""Warnings that a result carries: what was left out, or done in a simpler way, while it was computed.

A function that returns a result collects them, and what it calls adds them, at any depth, in this thread and in those of solvers.  Nothing
is collected after the block: the warnings are part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from mipnet.errors import ContradictedProof, MemoryLimitReached, SolverFailure, TimeLimitReached, TooFineForFloat64
from mipnet.limits.memory import fits, shown_bytes

FunctionWithResult = TypeVar("FunctionWithResult", bound=Callable[..., Any])

_collected: ContextVar[list[str] | None] = ContextVar("warnings of a result of mipnet", default=None)


@contextmanager
def collected_warnings(about: str = "", *, passed_on: bool = True) -> Iterator[list[str]]:
    """Collect the warnings that are added in the block, each text once; a result that is computed around it has them as well.

    There, each text begins with what it is ``about``, such as one of several programs.  If it is not ``passed_on``, only the list has it.
    """
    outer, own = _collected.get(), list[str]()
    token = _collected.set(own)
    try:
        yield own
    finally:
        _collected.reset(token)
        if outer is not None and passed_on:
            outer += [about + text for text in own if about + text not in outer]


def add_warning(text: str) -> None:
    """Add a warning to the result that is being computed; without one, nothing happens."""
    own = _collected.get()
    if own is not None and text not in own:
        own.append(text)


def carries_warnings(function: FunctionWithResult) -> FunctionWithResult:
    """Decorate a function whose result is a dataclass with a field ``warnings``: it gets those that were added meanwhile."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with collected_warnings() as added:
            found = function(*arguments, **keywords)
        return replace(found, warnings=tuple(dict.fromkeys((*(found.warnings or ()), *added))))

    return call  # type: ignore[return-value]


def fits_or_warns(size: float, stopped: str, waiting: str) -> bool:
    """Return True if ``size`` bytes fit into memory; else add a warning that the work is ``stopped``, and what is ``waiting``."""
    if fits(size):
        return True
    add_warning(f"{stopped}: {waiting}, which take {shown_bytes(size)} once more when they are stored")
    return False


@contextmanager
def left_out_if_late(what: str) -> Iterator[None]:
    """Run a check that may be left out: if the time ends before it is finished, that is added as a warning."""
    try:
        yield
    except TimeLimitReached:
        add_warning(f"{what}, because of the time limit")


@contextmanager
def left_out_if_too_large(what: str) -> Iterator[None]:
    """Run a part of a computation that may be left out: if it would not fit into memory, it ends, which is added as a warning."""
    try:
        yield
    except MemoryLimitReached as error:
        add_warning(f"{what} was left out: {error}")


@contextmanager
def kept_if_solver_fails(what: str) -> Iterator[None]:
    """Run a part of a computation in which a solver may fail: then it ends, which is added as a warning, and what was proven before holds.

    A proof that a forward pass contradicts is raised: what was proven before may be wrong as well.
    """
    try:
        yield
    except ContradictedProof:
        raise
    except TooFineForFloat64 as error:
        add_warning(f"{what} was left out: {error}")
    except SolverFailure as error:
        add_warning(f"{what} ended early, because the solver failed: {error}")
