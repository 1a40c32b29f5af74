"""Problems that the engine solves.

`Problem` is the interface: a program, the separators of constraints that it does not contain, and functions on its points.  `Modelled` is
the problem of a linopy model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, Literal

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array, Columns, Mask, distinct
from mipnet.backend import Program
from mipnet.errors import InputError, UnsupportedError, shown
from mipnet.model.encoding import Encoding, networks_in
from mipnet.model.to_program import column_lookup, from_model
from mipnet.network.given_arrays import as_labelled, numbers, spread
from mipnet.solving.gradient_search import GradientSearch
from mipnet.solving.region_check import FEASIBILITY_ROUNDING, check_region, rows_of_user
from mipnet.solving.replay import labelled, replay
from mipnet.solving.separators import IdealCuts, Separator, Squares

SPREAD_PASSES = 16
"""Number of forward passes that tell how far apart the values of an objective are."""

Start = Literal["search", "forward", "none"] | Array
"""The start of a solve: a gradient search, a forward pass, none, or a point; see `mipnet.solve`."""


class Problem(ABC):
    """A problem that the engine solves.

    ``program`` is its program; an open problem replaces it by one with another objective or tighter bounds.  ``separators`` are the
    constraints that are not part of the program.  ``tighteners`` are separators of inequalities that are valid for all feasible points.
    """

    program: Program
    separators: Sequence[Separator]
    tighteners: Sequence[Separator] = ()

    @abstractmethod
    def start(self, wanted: Start) -> Array | None:
        """Return the start by column, or None; the engine checks whether it is feasible."""

    @abstractmethod
    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Return the point recomputed by the network, and its largest relative difference from ``x``; None if there is no network.

        Without ``compare`` the difference is not computed.
        """

    def gradient_search(self) -> GradientSearch | None:
        """Return a search for good points without a solver, or None if the problem has none."""
        return None

    def prepare_replay(self) -> None:
        """Compute what the replay of any point needs: here the sizes of columns."""
        _ = self.program.anchors  # they are kept

    def objective_spread(self) -> float:
        """Return how far apart the objective is at some forward passes, infinite if there are none."""
        return math.inf

    def embedded_columns(self) -> Mask | None:
        """Return the columns that networks in a user's model brought into it, as a mask, or None if there are no such networks."""
        return None

    @abstractmethod
    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """Return the point as labelled arrays, and by variable label."""

    def costs(self, objective: Any) -> tuple[Array, float]:
        """Return the coefficient per column, and the constant, of an objective; here it is an array with one number per column."""
        cost = np.array(numbers(objective, "the objective", InputError), dtype=np.float64)
        if cost.shape != (self.program.columns,):
            raise InputError(f"the objective has shape {cost.shape}; expected one number for each of {self.program.columns} columns")
        return cost, 0.0

    def columns(self, variables: Any) -> Columns:
        """Return the columns of some variables; here they are given by number."""
        given = np.asarray(variables)
        if given.dtype.kind not in "iu" or (given.size and not 0 <= given.min() <= given.max() < self.program.columns):
            raise InputError(f"columns are numbers from 0 to {self.program.columns - 1}; got {shown(variables)}")
        return given.astype(np.int64)

    def values_for(self, variables: Any, given: Any) -> Array:
        """Return numbers for some variables in the order of their columns: labelled numbers by their labels."""
        return np.asarray(numbers(given, "the array of bounds", InputError), dtype=np.float64)


@dataclass(eq=False)
class Modelled(Problem):
    """The problem of a linopy model, with the encodings of the networks in it, in the order in which they were added."""

    model: linopy.Model
    encodings: tuple[Encoding, ...]
    program: Program
    separators: Sequence[Separator] = ()
    tighteners: Sequence[Separator] = ()

    @staticmethod
    def of(problem: Encoding | linopy.Model) -> Modelled:
        """Return the problem of a model, or of the model that an encoding is part of.

        Raises `InputError` if the input variables of a network have wider bounds than when it was added.
        """
        model = problem.model if isinstance(problem, Encoding) else problem
        encodings = tuple(networks_in(model))
        program = from_model(model, [term for encoding in encodings for term in encoding.convex])
        for number, encoding in enumerate(encodings):
            check_region(encoding, program, partial(rows_of_user, model, encodings[number:]))
        embedded = any(encoding.grid is not None for encoding in encodings)
        program = replace(program, user_rows=rows_of_user(model, encodings), embedded=embedded)
        if any(encoding.gates and encoding.bounds.mode == "paper" for encoding in encodings):
            program = replace(program, steps=None)  # rows that keep units in their phases compute nothing
        neurons = [each for encoding in encodings for block in encoding.blocks.values() for each in block.notes.neurons]
        where = column_lookup(np.asarray(program.labels))
        squares = [Squares(where[s.x], where[s.t], s.centre, s.radius) for encoding in encodings for s in encoding.squares]
        return Modelled(model, encodings, program, squares, [IdealCuts.of(neurons, program)] if neurons else ())

    def start(self, wanted: Start) -> Array | None:
        """Return a forward pass at the centre of the input sets, or the point given by label."""
        if isinstance(wanted, str):
            if wanted not in ("search", "forward", "none"):
                raise InputError(f"the start is `{wanted}`; expected `search`, `forward`, `none` or a point by variable label")
            if wanted == "none" or not self.encodings:
                return None
            point: Array = reduce(self._forward, self.encodings, np.full(self._label_count, np.nan))
        else:
            point = np.asarray(numbers(wanted, "the start", InputError), dtype=np.float64)
        if point.shape != (self._label_count,):
            raise InputError(f"the start has shape {point.shape}; expected one number for each of {self._label_count} variable labels")
        return point[self.program.labels]

    @property
    def _label_count(self) -> int:
        return self.model._xCounter

    def _forward(self, known: Array, encoding: Encoding) -> Array:
        """Return what is known of a point, and a forward pass at the centre of the input set with all scores 1, within the bounds.

        Inputs that are known, such as the outputs of an earlier network, keep their values; integer ones are rounded.
        """
        lower, upper = (np.full(self._label_count, end) for end in (-np.inf, np.inf))
        lower[self.program.labels], upper[self.program.labels] = self.program.implied_bounds
        source, x = encoding.source, encoding.region.centre
        middle = np.full(self._label_count, np.nan)
        if not source.is_fixed:
            if encoding.host is None and (source.row_sizes == 1).all():
                middle[source.terms.indices] = x.reshape(-1)
            else:
                labels = distinct(source.terms.indices)
                middle[labels] = _centres(lower[labels], upper[labels])
            whole = np.asarray(self.program.labels)[self.program.integer]
            middle[whole] = np.round(middle[whole])
            middle = np.where(np.isnan(known), np.clip(middle, lower, upper), known)
            x = encoding.region.nearest(source.evaluate(middle))
        scores = {name: variable.labels.values for name, variable in encoding.scores.items()}
        point = encoding.point(x, {name: np.clip(1.0, lower[labels], upper[labels]) for name, labels in scores.items()})
        for later in (point, middle):
            known = np.where(np.isnan(known), later, known)
        return known

    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Replay one network after another with `mipnet.solving.problem.replay`; the difference is the largest one."""
        errors: list[float] = []
        for encoding in self.encodings:
            x, error = replay(encoding, self.program, x, compare=compare)
            errors.append(error)
        return x, max(errors, default=None)

    def prepare_replay(self) -> None:
        """Compute what the replay of any point needs: the sizes of columns and nodes."""
        super().prepare_replay()
        for encoding in self.encodings:
            _ = encoding.node_sizes

    def gradient_search(self) -> GradientSearch | None:
        """Return a gradient search if the input of a network ranges over a box or its gates have scores, else None."""
        search = GradientSearch(self.program, self.encodings)
        return search if len(search.free) else None

    def objective_spread(self) -> float:
        """Return how far apart the objective is at forward passes from inside the input set of the only network."""
        if len(self.encodings) != 1 or self.encodings[0].grid is not None or self.encodings[0].source.is_fixed:
            return math.inf
        encoding, rng = self.encodings[0], np.random.default_rng(0)
        low, high = encoding.region.lower, encoding.region.upper
        inputs = [encoding.region.nearest(low + rng.uniform(size=low.shape) * (high - low)) for _ in range(SPREAD_PASSES)]
        used = np.flatnonzero(self.program.cost)
        points = np.array([encoding.point(x)[np.asarray(self.program.labels)[used]] for x in inputs])
        values = points @ self.program.cost[used]
        return math.inf if np.isnan(values).any() else float(np.ptp(values))

    def embedded_columns(self) -> Mask | None:
        """Return the columns that networks of `mipnet.add_network` brought into the model, or None if there are none."""
        if not self.program.embedded:
            return None
        names = [name for encoding in self.encodings for name in encoding.own_variables]
        labels = [self.model.variables[name].labels.values.reshape(-1) for name in names]
        return np.isin(np.asarray(self.program.labels), np.concatenate(labels or [np.empty(0, dtype=np.int64)]))

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """Return the point with one labelled array per variable, and by variable label."""
        point = np.full(self._label_count, np.nan)
        point[self.program.labels] = x
        return labelled(self.model, point), point

    def costs(self, objective: Any) -> tuple[Array, float]:
        """Return coefficients and constant of a linopy expression or variable, summed over its dimensions, or of one number per column."""
        if isinstance(objective, linopy.Variable):
            labels = objective.labels.values.reshape(-1)
            return self._cost_of(labels, np.ones(len(labels))), 0.0
        if isinstance(objective, linopy.QuadraticExpression):
            raise UnsupportedError("the objective is quadratic; mipnet supports linear ones: linearise it")
        if not isinstance(objective, linopy.LinearExpression):
            return super().costs(objective)
        cost = self._cost_of(objective.vars.values.reshape(-1), objective.coeffs.values.reshape(-1))
        return cost, float(np.nansum(objective.const.values))

    def _cost_of(self, labels: Columns, factors: Array) -> Array:
        """Return the coefficient per column of a sum of variables by label times their factors; terms with label -1 are absent."""
        present = labels >= 0
        cost = np.zeros(self.program.columns)
        np.add.at(cost, self._columns_of(labels[present]), factors[present])
        return cost

    def columns(self, variables: Any) -> Columns:
        """Return the columns of a linopy variable, or columns given by number."""
        return self._columns_of(variables.labels.values) if isinstance(variables, linopy.Variable) else super().columns(variables)

    def values_for(self, variables: Any, given: Any) -> Array:
        """Return numbers in the order of the columns of a linopy variable: labelled numbers by the variable's dimensions and labels."""
        named = as_labelled(given)
        if named is None or not isinstance(variables, linopy.Variable):
            return super().values_for(variables, given)
        own = spread(variables.labels, named, f"variable `{variables.name}` and its bounds", InputError)[1]
        return np.asarray(own.values, dtype=np.float64)

    def _columns_of(self, labels: Columns) -> Columns:
        lookup = column_lookup(np.asarray(self.program.labels))
        inside = (labels >= 0) & (labels < len(lookup))
        columns = np.where(inside, lookup[np.where(inside, labels, 0)], -1)
        if (columns < 0).any():
            missing = np.count_nonzero(columns < 0)
            raise InputError(f"{missing} variables are masked, or were added to the model after it was opened; open it again")
        return columns


def _centres(lower: Array, upper: Array) -> Array:
    """Return the middle of each interval; of a half-line its end, and 0 of a line."""
    below, above = np.isfinite(lower), np.isfinite(upper)
    low, high = np.where(below, lower, np.where(above, upper, 0.0)), np.where(above, upper, np.where(below, lower, 0.0))
    middle: Array = (low + high) / 2
    return middle


def if_feasible(program: Program, point: Array) -> Array | None:
    """Return the point if it has no NaN and violates no constraint by more than `FEASIBILITY_ROUNDING`, else None."""
    return None if np.isnan(point).any() or program.relative_violation(point) > FEASIBILITY_ROUNDING else point
