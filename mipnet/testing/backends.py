"""`check_backend`: the contract of `mipnet.backend` as a suite that any backend can be held against, in or out of pytest.

    from mipnet.testing import backend_checks, check_backend

    check_backend(MyBackend())                                       # raises AssertionError, naming the clauses that do not hold

    @pytest.mark.parametrize("name, check", backend_checks(MyBackend()))
    def test_backend(name, check):                                   # one test a clause
        check()

Checks whose features the backend does not list are left out.  All of them take about 20 seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mipnet.backend import Backend

# importing a module registers its checks
from mipnet.testing import asking, optima, sessions, stops
from mipnet.testing.checking import REGISTER

__all__ = ["asking", "backend_checks", "check_backend", "optima", "sessions", "stops"]


def backend_checks(backend: Backend) -> list[tuple[str, Callable[[], None]]]:
    """Every check that applies to the features of the backend, by name."""
    return [(c.name, partial(c.run, backend)) for c in REGISTER if c.needs <= backend.features]


def check_backend(backend: Backend) -> None:
    """Runs every check; raises one AssertionError that lists all clauses of the contract that do not hold."""
    failures: list[str] = []
    for check in REGISTER:
        if not check.needs <= backend.features:
            continue
        try:
            check.run(backend)
        except Exception as error:  # a broken backend may fail in any way
            failures.append(f"{check.name} ({check.clause}): {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"backend `{backend.name}` breaks {len(failures)} clauses of the contract:\n  " + "\n  ".join(failures))
