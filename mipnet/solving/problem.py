"""What the engine solves, and its replay: a `Problem` is a program, what was left out of it, and how to read a point of it.

A point is made true by a forward pass: `Problem.replay` reads the input and the scores off it and computes all the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal

import linopy
import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array, Columns
from mipnet.backend import Program
from mipnet.errors import InputError, UnsupportedError
from mipnet.model.encoding import Encoding, networks_in
from mipnet.model.to_program import column_lookup, from_model
from mipnet.network.gates import gated_value
from mipnet.network.graph import INPUT
from mipnet.solving.gradient_search import GradientSearch
from mipnet.solving.separators import IdealCuts, Separator, Squares

FEASIBILITY_ROUNDING = 1e-9
"""A point that is not the solver's own counts as feasible if it misses no constraint by more, relative to the constraint's size."""

Start = Literal["search", "forward", "none"] | Array


class Problem(ABC):
    """What the engine solves: a program, what was left out of it, and how to read a point of it.

    ``tighteners`` cut points that are not integral, and only those.  A problem that is held open has a ``program`` with another
    objective, or with tighter bounds, from one solve to the next.
    """

    program: Program
    separators: Sequence[Separator]
    tighteners: Sequence[Separator] = ()

    @abstractmethod
    def start(self, wanted: Start) -> Array | None:
        """The start by column, or None if there is none; the engine looks whether it is feasible."""

    @abstractmethod
    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """The point computed again by the network, and with ``compare`` its largest relative distance from ``x``."""

    def searched(self) -> GradientSearch | None:
        """How to look for good points without a solver, or None where there is no way."""
        return None

    @abstractmethod
    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """The point as labelled arrays, and by variable label."""

    def costs(self, objective: Any) -> tuple[Array, float]:
        """What each column costs, and the constant, in an objective given as the problem's users say it: here a number a column."""
        cost = np.array(objective, dtype=np.float64)
        if cost.shape != (self.program.columns,):
            raise InputError(f"the objective has shape {cost.shape}; expected one number for each of {self.program.columns} columns")
        return cost, 0.0

    def columns(self, variables: Any) -> Columns:
        """The columns of some variables, as the problem's users name them: here by number."""
        given = np.asarray(variables)
        if given.dtype.kind not in "iu" or (given.size and not 0 <= given.min() <= given.max() < self.program.columns):
            raise InputError(f"columns are numbers from 0 to {self.program.columns - 1}; got {variables!r}")
        return given.astype(np.int64)


@dataclass(eq=False)
class Modelled(Problem):
    """A linopy model and the networks that are written in it, in the order in which they were."""

    model: linopy.Model
    encodings: tuple[Encoding, ...]
    program: Program
    separators: Sequence[Separator] = ()
    tighteners: Sequence[Separator] = ()

    @staticmethod
    def of(problem: Encoding | linopy.Model) -> Modelled:
        """The problem of a model, or of the model that an encoding is part of."""
        model = problem.model if isinstance(problem, Encoding) else problem
        encodings = tuple(networks_in(model))
        program = from_model(model, [term for encoding in encodings for term in encoding.convex])
        for encoding in encodings:
            _check_region(encoding, program)
        neurons = [each for encoding in encodings for block in encoding.blocks.values() for each in block.notes.neurons]
        where = column_lookup(np.asarray(program.labels))
        squares = [Squares(where[s.x], where[s.t], s.centre, s.radius) for encoding in encodings for s in encoding.squares]
        return Modelled(model, encodings, program, squares, [IdealCuts.of(neurons, program)] if neurons else ())

    def start(self, wanted: Start) -> Array | None:
        """The forward pass at the centre of the input sets, or the point given by label."""
        if isinstance(wanted, str):
            if wanted not in ("search", "forward", "none"):
                raise InputError(f"the start is `{wanted}`; expected `search`, `forward`, `none` or a point by variable label")
            if wanted == "none" or not self.encodings:
                return None
            point: Array = reduce(lambda first, later: np.where(np.isnan(first), later, first), map(self._forward, self.encodings))
        else:
            point = np.asarray(wanted, dtype=np.float64)
        if point.shape != (self._known,):
            raise InputError(f"the start has shape {point.shape}; expected one number for each of {self._known} variable labels")
        return point[self.program.labels]

    @property
    def _known(self) -> int:
        return self.model._xCounter

    def _forward(self, encoding: Encoding) -> Array:
        """The forward pass at the centre of the input set, gates open, as far as the bounds let it."""
        lower, upper = (np.full(self._known, end) for end in (-np.inf, np.inf))
        lower[self.program.labels], upper[self.program.labels] = self.program.lower, self.program.upper
        source, x = encoding.values[INPUT], encoding.region.centre
        if not source.is_fixed:
            labels = source.terms.indices
            x = np.clip(x.reshape(-1), lower[labels], upper[labels]).reshape(x.shape)
        owned = {name: variable.labels.values for name, variable in encoding.scores.items()}
        return encoding.point(x, {name: np.clip(1.0, lower[labels], upper[labels]) for name, labels in owned.items()})

    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Network after network by `mipnet.solving.problem.replay`; the distance is the largest, or None without a network."""
        errors: list[float] = []
        for encoding in self.encodings:
            x, error = replay(encoding, self.program, x, compare=compare)
            errors.append(error)
        return x, max(errors, default=None)

    def searched(self) -> GradientSearch | None:
        """By gradient steps, where a network's input ranges over a box or its gates have scores."""
        search = GradientSearch(self.program, self.encodings)
        return search if len(search.free) else None

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """One array a variable."""
        point = np.full(self._known, np.nan)
        point[self.program.labels] = x
        return labelled(self.model, point), point

    def costs(self, objective: Any) -> tuple[Array, float]:
        """Of a linopy expression or variable, summed over its dimensions, or of a number a column."""
        if isinstance(objective, linopy.Variable):
            objective = 1 * objective
        if isinstance(objective, linopy.QuadraticExpression):
            raise UnsupportedError("the objective is quadratic; mipnet takes linear ones: linearise it")
        if not isinstance(objective, linopy.LinearExpression):
            return super().costs(objective)
        labels, factors = objective.vars.values.reshape(-1), objective.coeffs.values.reshape(-1)
        there = labels >= 0
        cost = np.zeros(self.program.columns)
        np.add.at(cost, self._columns_of(labels[there]), factors[there])
        return cost, float(np.nansum(objective.const.values))

    def columns(self, variables: Any) -> Columns:
        """Of a linopy variable, or by number."""
        return self._columns_of(variables.labels.values) if isinstance(variables, linopy.Variable) else super().columns(variables)

    def _columns_of(self, labels: Columns) -> Columns:
        lookup = column_lookup(np.asarray(self.program.labels))
        inside = (labels >= 0) & (labels < len(lookup))
        columns = np.where(inside, lookup[np.where(inside, labels, 0)], -1)
        if (columns < 0).any():
            missing = np.count_nonzero(columns < 0)
            raise InputError(f"{missing} variables are masked, or were added to the model after it was opened; open it again")
        return columns


def _check_region(encoding: Encoding, program: Program) -> None:
    """Raise `InputError` if a variable that the network reads may leave the input set that its bounds were computed for."""
    source = encoding.values[INPUT]
    if source.is_fixed:
        return
    labels = np.asarray(program.labels)
    columns = column_lookup(labels)[source.terms.indices]
    lower, upper = encoding.region.lower.reshape(-1) - FEASIBILITY_ROUNDING, encoding.region.upper.reshape(-1) + FEASIBILITY_ROUNDING
    wider = (program.lower[columns] < lower) | (program.upper[columns] > upper)
    if wider.any():
        raise InputError(
            f"{np.count_nonzero(wider)} inputs of the network have wider bounds than when it was written into the model, and its big-Ms"
            " hold for those only; set bounds first and add the network then"
        )


def if_feasible(program: Program, point: Array) -> Array | None:
    """The point, if it is known in full and meets every constraint; a forward pass does so up to rounding, not to a tolerance."""
    return None if np.isnan(point).any() or program.misses(point) > FEASIBILITY_ROUNDING else point


def labelled(model: linopy.Model, point: Array) -> xr.Dataset:
    """A point by label as a Dataset with one array a variable; NaN where a variable is masked."""
    values = {}
    for name, variable in model.variables.items():
        labels = variable.labels
        data = np.where(labels.values >= 0, point[labels.values], np.nan)
        values[name] = xr.DataArray(data, dims=labels.dims, coords=labels.coords)
    return xr.Dataset(values)


def replay(encoding: Encoding, program: Program, x: Array, *, compare: bool = True) -> tuple[Array, float]:
    """The point recomputed by a forward pass of the network, and its largest distance from the solver's.

    Input and scores are read off ``x`` (moved into their set, binary scores rounded), every variable that the encoding owns
    is computed again from them, and the others keep the solver's values.  With ``compare`` the network itself runs in torch, in
    float64 with its gates acting as `mipnet.network.gates.gated_value` says, and the distance is the largest ``|a - b| / (1 + |b|)`` over
    all nodes; without, it is 0.
    """
    point = np.full(encoding.model._xCounter, np.nan)
    point[program.labels] = x
    given = encoding.region.nearest(encoding.value(INPUT, point))
    scores = {gate.name: _score(encoding, gate.name, point) for gate in encoding.gates}
    recomputed = encoding.point(given, scores)
    merged = np.where(np.isnan(recomputed), point, recomputed)
    return merged[program.labels], _distance(encoding, point, given, scores) if compare else 0.0


def _score(encoding: Encoding, gate: str, point: Array) -> Array:
    variable = encoding.scores[gate]
    score: Array = np.clip(point[variable.labels.values], 0.0, 1.0)
    return np.round(score) if variable.attrs["binary"] else score


def _distance(encoding: Encoding, point: Array, given: Array, scores: Mapping[str, Array]) -> float:
    with torch.no_grad():
        values = encoding.network.values(torch.tensor(given), after=gate_actions(encoding, scores))
    error = 0.0
    for name in encoding.blocks:
        truth = values[name].numpy()
        error = max(error, float((np.abs(encoding.value(name, point) - truth) / (1 + np.abs(truth))).max(initial=0.0)))
    return error


def gate_actions(encoding: Encoding, scores: Mapping[str, Array]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """For each gate site what the gate does to the value there, given the scores; for `Network.values`."""
    actions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    for gate in encoding.gates:
        for site in gate.sites:
            thresholds = encoding.blocks[site].notes.gate_thresholds
            actions[site] = partial(gated_value, thresholds=thresholds, score=torch.tensor(scores[gate.name]))
    return actions
