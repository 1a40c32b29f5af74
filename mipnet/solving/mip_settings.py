"""The settings of mixed-integer programs: the solver, its own options, and how the network is written for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from mipnet.backend import Backend, Options, get_backend
from mipnet.errors import suggest_keywords
from mipnet.formulations.choice import Formulation


@suggest_keywords
@dataclass(frozen=True)
class MipSettings:
    """The solver of mixed-integer programs, its own options, and how the network is written for it.

    Every argument ``backend`` that only names a solver also takes these settings, for example
    ``mn.verify(network, question, backend=mn.MipSettings("scip", formulation={"relu": "sos1"}))``.

    Parameters
    ----------
    backend
        The name of an installed backend, or an instance of `Backend`.
    options
        The solver's own options, by its own names.
    formulation
        The formulation by kind of layer, as for `mipnet.encode`.
    """

    backend: str | Backend = "highs"
    options: Options | None = None
    formulation: Formulation | None = None

    @classmethod
    def of(cls, given: str | Backend | MipSettings) -> Self:
        """Return settings of this class with the backend loaded; raises `BackendMissing` if it is not installed."""
        if isinstance(given, cls):
            settings = given
        elif isinstance(given, MipSettings):
            settings = cls(given.backend, given.options, given.formulation)
        else:
            settings = cls(given)
        return replace(settings, backend=get_backend(settings.backend))

    @property
    def solver(self) -> Backend:
        """The backend itself."""
        return get_backend(self.backend)
