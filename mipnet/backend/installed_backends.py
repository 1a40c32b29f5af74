"""The backends that installed packages announce by entry points, and the choice of one by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

from mipnet.backend.contract import Backend
from mipnet.errors import BackendError, BackendMissing, InputError, meant, shown, suggest_keywords

ENTRY_POINT_GROUP = "mipnet.backends"
"""The group of entry points that announce backends."""


@dataclass(frozen=True)
class FoundBackend:
    """A backend that an entry point announces: loaded, or with the problem that prevents it."""

    name: str
    backend: Backend | None
    problem: str = field(default="")


@cache
def _announced() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise BackendError(f"two packages announce a backend `{point.name}`: {found[point.name].value} and {point.value}; remove one")
        found[point.name] = point
    return dict(sorted(found.items()))


def backends() -> list[FoundBackend]:
    """Return every announced backend; a broken or missing one is listed with its problem."""
    return [_load(name, point) for name, point in _announced().items()]


def _load(name: str, point: EntryPoint) -> FoundBackend:
    try:
        backend = point.load()()
    except Exception as error:  # a plug-in may raise anything; the others must still load
        return FoundBackend(name, None, f"cannot be loaded: {type(error).__name__}: {error}")
    return FoundBackend(name, backend, backend.problem)


class BackendSettings:
    """Base class of settings that some functions take in place of a backend; ``taken_by`` lists these functions."""

    taken_by: ClassVar[str] = "some functions"

    def __post_init__(self) -> None:
        if (given := getattr(self, "backend", None)) is None or not isinstance(given, str | Backend):
            raise _no_backend(given)

    def refused(self, expected: str) -> InputError:
        """Return the error of a function that does not take these settings but what is ``expected``."""
        return InputError(f"`backend` is `{type(self).__name__}`, which is for {self.taken_by}; this function takes {expected}")


def _no_backend(given: object) -> BackendMissing:
    return BackendMissing(f"the backend is {shown(given)}; expected a name ({', '.join(_announced())}) or an instance of `Backend`")


def _known_backends(given: str) -> str:
    return f"known: {', '.join(_announced()) or 'none (is mipnet installed?)'}{meant(given, _announced())}"


@suggest_keywords
def get_backend(which: str | Backend) -> Backend:
    """Return the backend with this name, or the instance itself; raises `BackendMissing` with the command that installs it."""
    if isinstance(which, Backend):
        return which
    if isinstance(which, BackendSettings):
        raise which.refused("the name of a backend, or an instance of `Backend`")
    if not isinstance(which, str):
        raise _no_backend(which)
    if which not in _announced():
        raise BackendMissing(f"no backend is called `{which}`; {_known_backends(which)}")
    found = _load(which, _announced()[which])
    if found.backend is None or found.problem:
        raise BackendMissing(f"backend `{which}`: {found.problem}")
    return found.backend
