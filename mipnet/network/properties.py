"""Properties of a network: inputs in a union of boxes whose outputs lie in a union of polyhedra.

A `Property` describes what should *not* happen, as in VNN-LIB: it is satisfied ("sat") if, for some case, some x in its region
has an output y = f(x) for which all rows of one of its clauses hold.  A network is safe if no such x exists ("unsat").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.errors import DataError, InputError, shown, suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.network.given_arrays import numbers
from mipnet.network.sets import Box

SMALLEST_POSITIVE = float(np.nextafter(0.0, 1.0))
"""The smallest float64 above 0."""


def _truths(given: object, what: str) -> Mask:
    array = np.array(given)
    if array.dtype != bool:
        raise InputError(f"a property was given {shown(given)} for {what}; expected True and False")
    return array


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Clause:
    """All outputs y with ``matrix @ y <= rhs``: a matrix of shape ``(rows, outputs)`` and ``rhs`` of shape ``(rows,)``.

    In the rows where ``strict`` is True (one value for all rows, or shape ``(rows,)``) the clause asks for ``<``.  Bounds and programs
    are of the closed rows: more outputs satisfy those, so what refutes them refutes the clause.  `excess` makes the difference.
    A clause without rows holds for every output.  Raises `DataError` for other shapes and for numbers that are not finite.
    """

    matrix: Array
    rhs: Array
    strict: Mask | bool = False

    def __post_init__(self) -> None:
        matrix, rhs = (np.array(numbers(value, "a part of a clause"), dtype=np.float64) for value in (self.matrix, self.rhs))
        if matrix.ndim != 2 or rhs.shape != matrix.shape[:1]:
            raise DataError(
                f"a clause has a matrix of shape {matrix.shape} and a side of shape {rhs.shape}; expected (rows, outputs), (rows,)"
            )
        if not (np.isfinite(matrix).all() and np.isfinite(rhs).all()):
            raise DataError("a clause holds NaN or infinite numbers; expected finite ones")
        strict = _truths(self.strict, "whether its rows are strict")
        if strict.shape not in ((), rhs.shape):
            raise DataError(f"a clause has {len(rhs)} rows and says of {strict.size} whether they are strict; expected one for each")
        strict = np.broadcast_to(strict, rhs.shape).copy()
        for key, value in (("matrix", matrix), ("rhs", rhs), ("strict", strict)):
            value.setflags(write=False)
            object.__setattr__(self, key, value)

    @expects("outputs of shape (samples, outputs)")
    def excess(self, y: Array) -> Array:
        """Return the largest ``matrix @ y - rhs`` over the rows for outputs ``(samples, outputs)``: at most 0 if the clause holds.

        In a strict row, 0 counts as the smallest number above 0.
        """
        rows = y @ self.matrix.T - self.rhs
        return np.asarray(np.where(self.strict & (rows == 0), SMALLEST_POSITIVE, rows).max(axis=-1, initial=-np.inf))


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Case:
    """Inputs of ``region`` with an output in one of the ``clauses``; the region is one flat box with ends of shape ``(1, inputs)``.

    ``open_ends`` of shape ``(2, inputs)``, if it is not None, is True for each lower and each upper end that an input must not reach.
    """

    region: Box
    clauses: tuple[Clause, ...]
    open_ends: Mask | None = None

    def __post_init__(self) -> None:
        ends = self.region.lower.shape
        if self.open_ends is not None:
            object.__setattr__(self, "open_ends", _truths(self.open_ends, "which ends are open"))
        if self.open_ends is not None and self.open_ends.shape != (2, *ends[1:]):
            raise DataError(f"the open ends of a case have shape {self.open_ends.shape}; expected {(2, *ends[1:])}")
        if len(ends) != 2 or ends[0] != 1:
            raise DataError(f"the region of a case has ends of shape {ends}; expected (1, inputs), a flat box for one sample")
        if len(widths := {clause.matrix.shape[1] for clause in self.clauses}) > 1:
            raise DataError(f"the clauses of a case are written for {sorted(widths)} outputs; expected the same number in each")

    @suggest_keywords
    @expects("inputs of shape (samples, *input shape), and one number of at least 0, or one for each input")
    def contains(self, x: Array, tolerance: float | Array = 0.0) -> Mask:
        """Return which inputs, of shape ``(samples, *input_shape)``, lie in the region, up to ``tolerance`` where its ends are closed.

        The tolerance is one number, or one per input.
        """
        flat = numbers(x, "the array of inputs").reshape(len(x), -1)
        if self.open_ends is not None:
            reached = (self.open_ends[0] & (flat <= self.region.lower)) | (self.open_ends[1] & (flat >= self.region.upper))
            return np.asarray(replace(self, open_ends=None).contains(x, tolerance) & ~reached.any(axis=1))
        inside = (flat >= self.region.lower - tolerance) & (flat <= self.region.upper + tolerance)
        found: Mask = np.array(inside.all(axis=1))
        found[found] = self.region.meets_further(flat[found], float(np.max(tolerance)))
        return found

    @expects("outputs of shape (samples, outputs)")
    def excess(self, y: Array) -> Array:
        """Return the smallest `Clause.excess` over the clauses: at most 0 if one of them holds, infinite without clauses."""
        smallest: Array = np.full(len(y), np.inf)
        for clause in self.clauses:
            smallest = np.asarray(np.minimum(smallest, clause.excess(y)))
        return smallest


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Property:
    """A disjunction of ``cases``: an input and its output satisfy the property if they satisfy one of the cases."""

    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cases", tuple(self.cases))
        if not self.cases:
            raise DataError("a property has no cases; expected at least one region of inputs")
        if len(inputs := {case.region.lower.shape[1] for case in self.cases}) > 1:
            raise DataError(f"the cases of a property are written for {sorted(inputs)} inputs; expected the same number in each")
        if len(outputs := {clause.matrix.shape[1] for case in self.cases for clause in case.clauses}) > 1:
            raise DataError(f"the cases of a property are written for {sorted(outputs)} outputs; expected the same number in each")

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.cases[0].region.lower.shape[1])

    @property
    def outputs(self) -> int | None:
        """Number of outputs; None if there are no clauses."""
        return next((int(clause.matrix.shape[1]) for case in self.cases for clause in case.clauses), None)

    @suggest_keywords
    def check(self, inputs: int, outputs: int) -> None:
        """Raise `InputError` unless the property has these numbers of inputs and outputs."""
        for what, given, there in (("inputs", self.inputs, inputs), ("outputs", self.outputs, outputs)):
            if given not in (None, there):
                raise InputError(f"the property is written for {given} {what}; the network has {there}")

    @suggest_keywords
    @expects("inputs and outputs of the same samples, samples first")
    def holds_at(self, x: Array, y: Array, tolerance: float = 0.0) -> Mask:
        """Return whether each input ``(samples, *input_shape)`` with its output ``(samples, *output_shape)`` satisfies the property.

        Input bounds and rows may be violated by ``tolerance``, in the units of an input and of a row.
        """
        out = numbers(y, "the array of outputs").reshape(len(y), -1)
        each = [case.contains(x, tolerance) & (case.excess(out) <= tolerance) for case in self.cases]
        return np.asarray(np.any(each, axis=0))
