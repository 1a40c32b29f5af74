"""How far a solver may violate rows and optimality: its own tolerances, finer ones, and those that users set by its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mipnet.errors.argument_kinds import is_number

SOLVER_ROW_TOLERANCE = 1e-6
"""How far a solver may violate a row; HiGHS and SCIP use at most this."""

SOLVER_REDUCED_COST_TOLERANCE = 1e-7
"""How far a reduced cost may have the wrong sign; HiGHS and SCIP use at most this."""

ToleranceKind = Literal["rows", "reduced costs", "both"]


@dataclass(frozen=True)
class SolverTolerances:
    """How far a solver may violate ``rows``, columns and integers, and by how much ``reduced_costs`` may have the wrong sign."""

    rows: float = SOLVER_ROW_TOLERANCE
    reduced_costs: float = SOLVER_REDUCED_COST_TOLERANCE

    @property
    def largest(self) -> float:
        """The larger one of both."""
        return max(self.rows, self.reduced_costs)

    def at_most(self, limit: float) -> SolverTolerances:
        """Return these tolerances, none of them above a limit."""
        return SolverTolerances(min(self.rows, limit), min(self.reduced_costs, limit))

    def with_options(self, options: Mapping[str, object], kinds: Mapping[str, ToleranceKind]) -> SolverTolerances:
        """Return the tolerances with the given options of a solver; ``kinds`` says what its options set.

        Of several options that set one tolerance the largest value counts.  One of a single kind that is not given has its value here; one
        of both kinds counts only if it is given.
        """
        given = {name: value for name, value in options.items() if is_number(value)}

        def largest(kind: ToleranceKind, default: float) -> float:
            values = [given.get(name, default) for name, each in kinds.items() if each == kind]
            return max([*values, *(given[name] for name, each in kinds.items() if each == "both" and name in given)], default=default)

        return SolverTolerances(largest("rows", self.rows), largest("reduced costs", self.reduced_costs))
