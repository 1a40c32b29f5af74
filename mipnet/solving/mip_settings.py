"""The settings of mixed-integer programs: the solver, its options, and the formulation of the network."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

from mipnet.backend import Backend, BackendSettings, Options, get_backend
from mipnet.errors import suggest_keywords
from mipnet.formulations.formulation_choice import Formulation

MOVED_TO_MIP_SETTINGS = {name: f"write `backend=mn.MipSettings(..., {name}=...)`" for name in ("options", "formulation")}
"""What to write instead of arguments that are now fields of `MipSettings`; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords
@dataclass(frozen=True)
class MipSettings(BackendSettings):
    """The solver of mixed-integer programs, its options, and the formulation of the network.

    The argument ``backend`` of `mipnet.verify`, `robustness`, `minimum_distortion`, `maximum_margin`, `reach`, `agree`, `agree_on_class`,
    `compress` and `tighten` takes these settings in place of the name of a solver, for example
    ``mn.verify(network, question, backend=mn.MipSettings("scip", formulation={"relu": "sos1"}))``.  `mipnet.solve`, `open_problem`,
    `explain`, `importance`, `Importance.solve` and `prune_stepwise` take a solver only; `weight_path` takes `mipnet.SolveSettings`.

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

    taken_by: ClassVar[str] = (
        "`verify`, `robustness`, `minimum_distortion`, `maximum_margin`, `reach`, `agree`, `agree_on_class`, `compress` and `tighten`"
    )

    @classmethod
    def of(cls, given: str | Backend | MipSettings) -> Self:
        """Return settings of this class with the backend loaded.

        Raises `BackendMissing` if the backend is not installed, and `InputError` for settings with fields that this class does not have.
        """
        if isinstance(given, MipSettings) and {each.name for each in fields(given)} <= {each.name for each in fields(cls)}:
            settings = cls(**{each.name: getattr(given, each.name) for each in fields(given)})
        elif isinstance(given, BackendSettings):
            raise given.refused(f"the name of a backend, an instance of `Backend`, or `mn.{cls.__name__}`")
        else:
            settings = cls(given)
        return replace(settings, backend=get_backend(settings.backend))

    @property
    def solver(self) -> Backend:
        """The backend as an object."""
        return get_backend(self.backend)
