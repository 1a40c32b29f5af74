"""The solver settings of functions that solve many importance programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mipnet.backend import Backend, BackendSettings, Options
from mipnet.errors import InputError, check_choice, suggest_keywords
from mipnet.network.given_arrays import numbers
from mipnet.solving.engine import Start


@suggest_keywords
@dataclass(frozen=True, eq=False)
class SolveSettings(BackendSettings):
    """The solver, the solver's own options, and the start of every solve.

    `weight_path`, `by_class` and `by_layer` take these settings in place of the name of a backend, for example
    ``mn.weight_path(question, weights, backend=mn.SolveSettings("scip", options={"limits/nodes": 100}))``.

    Parameters
    ----------
    backend
        The name of an installed backend, or an instance of `Backend`.
    options
        The solver's own options, by its own names.
    start
        The start of every solve, as for `mipnet.solve`.
    """

    backend: str | Backend = "highs"
    options: Options | None = None
    start: Start = "forward"

    taken_by: ClassVar[str] = "`weight_path`, `by_class` and `by_layer`"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.start, str):
            check_choice("the start", self.start, ("search", "forward", "none"))
        else:
            numbers(self.start, "the start", InputError)

    @classmethod
    def of(cls, given: str | Backend | SolveSettings) -> SolveSettings:
        """Return settings as they are, and a backend or its name as settings; raises `InputError` for settings of another class."""
        if isinstance(given, SolveSettings):
            return given
        if isinstance(given, BackendSettings):
            raise given.refused("the name of a backend, an instance of `Backend`, or `mn.SolveSettings`")
        return cls(given)
