"""`check_backend`: tests of the contract of `mipnet.backend` for any backend, with or without pytest.

    from mipnet.testing import backend_checks, check_backend

    check_backend(MyBackend())                                       # raises AssertionError with the clauses that do not hold

    @pytest.mark.parametrize("name, check", backend_checks(MyBackend()))
    def test_backend(name, check):                                   # one test per clause
        check()

Checks that need other features than those of the backend are left out.  All checks take about 15 seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mipnet.backend import Backend
from mipnet.errors import InputError, suggest_keywords

# importing a module registers its checks
from mipnet.testing import callbacks, limits, optima, sessions
from mipnet.testing.assertions import BACKEND_CHECKS, OVERTIME_SECONDS

__all__ = ["backend_checks", "callbacks", "check_backend", "limits", "optima", "sessions"]


@suggest_keywords
def backend_checks(backend: Backend, *, overtime: float = OVERTIME_SECONDS) -> list[tuple[str, Callable[[], None]]]:
    """Return the name and the function of every check that applies to the features of the backend.

    ``overtime`` is the number of seconds by which a solve may exceed its time limit; raise it on a busy machine.
    """
    return [(c.name, partial(c.run, backend, overtime)) for c in BACKEND_CHECKS if c.needs <= backend.features]


@suggest_keywords
def check_backend(backend: Backend, *, overtime: float = OVERTIME_SECONDS) -> None:
    """Run every check; raises one AssertionError that lists all clauses of the contract that do not hold.

    Parameters
    ----------
    backend
        An instance of the backend.
    overtime
        Seconds by which a solve may exceed its time limit; raise it on a busy machine.
    """
    if isinstance(backend, type):
        raise InputError(f"`{backend.__name__}` is a class; expected a backend, that is an instance: `{backend.__name__}()`")
    failures: list[str] = []
    for check in BACKEND_CHECKS:
        if not check.needs <= backend.features:
            continue
        try:
            check.run(backend, overtime)
        except Exception as error:  # a broken backend may raise anything
            failures.append(f"{check.name} ({check.clause}): {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"backend `{backend.name}` breaks {len(failures)} clauses of the contract:\n  " + "\n  ".join(failures))
