"""The settings of mixed-integer programs: the solver, its options, and the formulation of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from mipnet.backend import Backend, Options, get_backend
from mipnet.errors import suggest_keywords
from mipnet.formulations.formulation_choice import Formulation


@suggest_keywords
@dataclass(frozen=True)
class MipSettings:
    """The solver of mixed-integer programs, its options, and the formulation of the network.

    Every argument ``backend`` that takes the name of a solver also takes these settings, for example
    ``mn.verify(network, question, backend=mn.MipSettings("scip", formulation={"relu": "sos1"}))``.

    Parameters
    ----------
    backend
        The name of an installed backend, or a `Backend` object.
    options
        Options of the solver by their names in the solver.
    formulation
        The formulation by lower-case layer name, as for `mipnet.encode`.
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
        """The backend as an object."""
        return get_backend(self.backend)
