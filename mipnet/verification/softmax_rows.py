"""Properties of a network that ends in a softmax, as properties of its logits.

For one group of outputs ``p_k = exp(y_k) / sum_j exp(y_j)`` with logits y, ``sum_k p_k = 1``, so a row ``a . p <= b`` is::

    sum_k c_k exp(y_k) <= 0,      c_k = a_k - b
    log sum_{i: c_i > 0} exp(y_i + ln c_i)  <=  log sum_{j: c_j < 0} exp(y_j + ln |c_j|)

With one positive and one negative c this is linear: a comparison of two outputs, or a threshold of one of two classes.  Other rows stay a
`LogSumRow`.  For log-probabilities ``q_k = y_k - log sum_j exp(y_j)``, a row whose coefficients sum to 0 is the same row of the logits, and
``q_k >= b`` is ``p_k >= exp(b)``.

All rows are rounded outwards.  A threshold is moved outwards by the rounding error of a softmax in the numbers of the oracle, in which
probabilities near 1 are 1 and tiny ones are 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from mipnet.arrays import Array, Ints
from mipnet.errors import UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import Network
from mipnet.network.properties import Clause

SOFTMAX_ERROR_UNITS = 8.0
"""Relative error of a computed probability, in units of the rounding error of the number type."""

LOGARITHM_ERROR_RELATIVE = 1e-13
"""Error of a computed logarithm and of the numbers in it, relative to 1 + its absolute value."""


@dataclass(frozen=True, eq=False)
class LogSumRow:
    """The row ``log sum_i exp(y_i + a_i) <= log sum_j exp(y_j + b_j)`` of the logits, for i in ``plus`` and j in ``minus``.

    ``shift`` holds ``a_i - b_j``, of shape ``(plus, minus)``.
    """

    plus: Ints
    minus: Ints
    shift: Array

    def excess(self, y: Array) -> Array:
        """Return the left side less the right side at logits ``(n, outputs)``: ``(n,)``."""
        z = y[:, self.plus, None] - y[:, None, self.minus] + self.shift
        return np.asarray(logsumexp(-logsumexp(-z, axis=2), axis=1))

    @property
    def swapped(self) -> LogSumRow:
        """The row with both sides exchanged."""
        return LogSumRow(self.minus, self.plus, -self.shift.T)


@dataclass(frozen=True, eq=False)
class LogitClause(Clause):
    """A clause of the logits: its linear rows, and ``log_sums`` as further rows."""

    log_sums: tuple[LogSumRow, ...] = ()


def logit_clauses(network: Network, clauses: Sequence[Clause], dtype: type[np.floating] = np.float64) -> tuple[Clause, ...]:
    """Return clauses of the logits that hold at least where the clauses of the outputs hold, computed in ``dtype`` or exactly.

    A clause of a network without a softmax, and one that only compares outputs, is returned as it is.  Raises `UnsupportedError` for a row
    that joins outputs of several groups, or several log-probabilities in another way than by their differences.
    """
    if network.softmax is None:
        return tuple(clauses)
    rows = _Rows(network.softmax, network.softmax.groups(network.output_shape), network.output_shape, float(np.finfo(dtype).eps), dtype)
    return tuple(rows.clause(each) for each in clauses)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rewrites the rows of clauses; ``eps`` is the rounding error of the oracle's number type."""

    softmax: FinalSoftmax
    groups: Ints
    shape: tuple[int, ...]
    eps: float
    dtype: type[np.floating]

    def clause(self, clause: Clause) -> Clause:
        """Return one clause of the logits."""
        given = list(clause.matrix)
        found = [self.row(a, float(b)) for a, b in zip(given, clause.rhs, strict=True)]
        if all(isinstance(each, tuple) and each[0] is a for each, a in zip(found, given, strict=True)):
            return clause
        log_sums = tuple(each for each in found if isinstance(each, LogSumRow))
        linear = [each for each in found if isinstance(each, tuple)]
        open_ = [each for each in linear if each[0].any() or each[1] < 0]
        linear = open_ if open_ or log_sums else linear[:1]
        matrix = np.array([a for a, _ in linear]).reshape(-1, clause.matrix.shape[1])
        return LogitClause(matrix, np.array([b for _, b in linear]), log_sums=log_sums)

    def row(self, a: Array, b: float) -> tuple[Array, float] | LogSumRow:
        """Return the row ``a . p <= b`` as a linear row of the logits, or as a `LogSumRow`."""
        if not a.any():
            return a, b
        if self.softmax.kind == "log_softmax":
            return self._log_row(a, b)
        group = self._group(a)
        inside = a[group]
        signs = b == 0 and (inside > 0).any() and (inside < 0).any()
        if signs and np.count_nonzero(inside) == 2 and inside.sum() == 0:
            return a, b
        if signs:
            return self._log_sum(a, group, inside)
        lost = SOFTMAX_ERROR_UNITS * self.eps * (np.abs(inside) + abs(b))
        tiny = float(np.finfo(self.dtype).tiny) * np.abs(inside).sum()
        return self._log_sum(a, group, inside - b - lost - tiny)

    def _log_row(self, a: Array, b: float) -> tuple[Array, float] | LogSumRow:
        """Return the row for log-probabilities."""
        if all(math.fsum(a[group]) == 0 for group in self.groups):
            return a, b
        group = self._group(a)
        if np.count_nonzero(a) > 1:
            raise UnsupportedError(
                f"a row of the property joins {np.count_nonzero(a)} outputs, and the network ends in a log_softmax;"
                f" expected single outputs, or differences of outputs (coefficients that sum to 0){self._hint}"
            )
        (place,) = np.flatnonzero(a[group])
        end = b / float(a[group][place])
        lost = SOFTMAX_ERROR_UNITS * self.eps * (1 + abs(end))
        above = bool(a[group][place] < 0)  # q >= end, else q <= end
        end = end - lost if above else end + lost
        others = np.delete(group, place)
        if end >= 0 or not len(others):  # no log-probability is above 0
            return 0 * a, -1.0 if (end > 0 if above else end < 0) else 0.0
        log_odds = -end + math.log1p(-math.exp(end)) if end < -1 else math.log(math.expm1(-end))
        # q >= end  if and only if  log sum of the others - y <= log(exp(-end) - 1)
        slack = LOGARITHM_ERROR_RELATIVE * (1 + abs(log_odds))
        shift = np.full((len(others), 1), -log_odds - slack) if above else np.full((1, len(others)), log_odds - slack)
        own = group[[place]]
        return self._linear_if_simple(a, LogSumRow(others, own, shift) if above else LogSumRow(own, others, shift))

    def _log_sum(self, a: Array, group: Ints, factor: Array) -> tuple[Array, float] | LogSumRow:
        """Return the row ``sum of factor * exp(y) <= 0`` over a group."""
        plus, minus = np.flatnonzero(factor > 0), np.flatnonzero(factor < 0)
        if not len(plus) or not len(minus):
            return 0 * a, -1.0 if len(plus) else 0.0
        shift = np.log(factor[plus])[:, None] - np.log(-factor[minus])
        shift -= LOGARITHM_ERROR_RELATIVE * (1 + np.abs(np.log(factor[plus]))[:, None] + np.abs(np.log(-factor[minus])))
        return self._linear_if_simple(a, LogSumRow(group[plus], group[minus], shift))

    def _linear_if_simple(self, a: Array, row: LogSumRow) -> tuple[Array, float] | LogSumRow:
        """Return a row of one logit on each side as a linear row."""
        if row.shift.size > 1:
            return row
        linear = 0 * a
        linear[row.plus], linear[row.minus] = 1.0, -1.0
        return linear, -float(row.shift[0, 0])

    def _group(self, a: Array) -> Ints:
        """Return the only group that a row reads; raises `UnsupportedError` if there are several."""
        read: list[Ints] = [group for group in self.groups if a[group].any()]
        if len(read) > 1:
            raise UnsupportedError(
                f"a row of the property joins outputs of {len(read)} distributions: the network ends in a {self.softmax.kind} over axes"
                f" {self.softmax.axes} of the output {self.shape}; expected rows of outputs that sum to 1 together{self._hint}"
            )
        return read[0]

    @property
    def _hint(self) -> str:
        return ", or `network.without_softmax()` for a property of the logits"
