"""Rewrites for features that a backend lacks: indicator rows and SOS1 sets become big-M rows, log-sum-exp becomes tangents.

Semi-continuous variables and SOS2 sets become binaries and rows for every backend.

A rewrite only appends columns and rows, so a point of the rewritten program starts with a point of the original program.
Big-Ms follow from the bounds of the columns; if a bound is infinite, `UnboundedError` names what to bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Mask, activity
from mipnet.backend.contract import Feature
from mipnet.backend.program import LogSumExp, Program
from mipnet.backend.rows import Rows
from mipnet.backend.value_sets import SemiContinuous, sos2_binaries
from mipnet.errors import UnboundedError


@dataclass(frozen=True, eq=False)
class RewrittenProgram:
    """A program that the backend supports; ``cuts`` are the terms to be linearised by cuts, ``rewritten`` describes the rewrites.

    ``members`` are the columns to which the appended binaries belong: those of SOS1 sets, of ``semi``, and of ``sos2``.
    """

    program: Program
    cuts: tuple[LogSumExp, ...]
    members: Columns
    rewritten: tuple[str, ...]
    semi: SemiContinuous | None = None
    sos2: tuple[Columns, ...] = ()

    def complete(self, x: Array) -> Array:
        """Return a point of the original program with the appended binaries: 1 if their member is not zero."""
        semi = [] if self.semi is None else [self.semi.binaries(x)]
        later = np.concatenate([np.empty(0), *semi, *(sos2_binaries(x, members) for members in self.sos2)])
        return np.concatenate([x, (x[self.members[: len(self.members) - len(later)]] != 0).astype(np.float64), later])


def rewrite(program: Program, features: AbstractSet[Feature]) -> RewrittenProgram:
    """Rewrite the parts of a program that need other features than the given ones."""
    rewritten: list[str] = []
    cuts: tuple[LogSumExp, ...] = ()
    members = np.empty(0, dtype=np.int64)
    if program.indicators is not None and Feature.INDICATOR not in features:
        rewritten.append(f"{_counted(len(program.indicators.rows), 'indicator row')} -> big-M rows")
        program = indicators_to_rows(program)
    if program.sos1 and Feature.SOS1 not in features:
        rewritten.append(f"{_counted(len(program.sos1), 'SOS1 set')} -> binaries and big-M rows")
        program, members = sos1_to_rows(program), np.concatenate([one[:-1] for one in program.sos1])
    semi, sos2 = program.semi, program.sos2
    if semi is not None:
        rewritten.append(f"{_counted(len(semi.columns), 'semi-continuous variable')} -> binaries and rows")
        program, members = semi_to_rows(program, semi), np.concatenate([members, semi.columns])
    if sos2:
        rewritten.append(f"{_counted(len(sos2), 'SOS2 set')} -> binaries and rows")
        program, members = sos2_to_rows(program), np.concatenate([members, *(one[:-1] for one in sos2)])
    if program.convex and Feature.LOG_SUM_EXP not in features:
        rewritten.append(f"{_counted(sum(len(c.epigraph) for c in program.convex), 'log-sum-exp term')} -> linearised by cuts")
        cuts, program = program.convex, replace(program, convex=())
    return RewrittenProgram(program, cuts, members, tuple(rewritten), semi, sos2)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def indicators_to_rows(program: Program) -> Program:
    """Replace ``b = a -> lo <= r @ x <= hi`` by ``r @ x <= hi + (max r@x - hi) [b != a]``, and likewise from below."""
    if program.indicators is None:
        return program
    rows, column, active = program.indicators.rows, program.indicators.column, program.indicators.active
    smallest, largest = activity(rows.matrix, *program.implied_bounds)
    parts = []
    for value, bound, sign in ((largest, rows.upper, 1.0), (smallest, rows.lower, -1.0)):
        binding = np.isfinite(bound) & (sign * (value - bound) > 0)
        if not np.isfinite(value[binding]).all():
            raise UnboundedError(
                f"{np.count_nonzero(~np.isfinite(value[binding]))} indicator rows have no finite big-M; bound their variables"
            )
        parts.append(_switched(rows, column, active, binding, value, bound, sign))
    return replace(program.with_rows(*parts), indicators=None)


def _switched(rows: Rows, column: Columns, active: Columns, binding: Mask, value: Array, bound: Array, sign: float) -> Rows:
    """Return rows that are active only if ``x[column] == active``: ``sign * r @ x <= sign * bound + M [x[column] != active]``."""
    which = np.flatnonzero(binding)
    big = sign * (value - bound)[which]
    on = active[which] == 1  # [b != 1] = 1 - b,  [b != 0] = b
    switch = Csr((np.where(on, big, -big), (np.arange(len(which)), column[which])), shape=(len(which), rows.matrix.shape[1]))
    upper = sign * bound[which] + np.where(on, big, 0.0)
    return Rows(Csr(rows.matrix[which] * sign + switch), np.full(len(which), -np.inf), upper)


def sos1_to_rows(program: Program) -> Program:
    """Replace SOS1 sets by ``l_i b_i <= x_i <= u_i b_i`` and ``sum b_i <= 1`` with a binary b_i per member but the last: ``1 - sum b_i``.

    A set of two members needs one binary, which gives the big-M form of "x or y is 0".
    """
    members = np.concatenate(program.sos1)
    owner = np.repeat(np.arange(len(program.sos1)), [len(s) for s in program.sos1])
    low, high = (end[members] for end in program.implied_bounds)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UnboundedError(
            f"{np.count_nonzero(~(np.isfinite(low) & np.isfinite(high)))} members of SOS1 sets have no finite bounds; bound them"
        )
    last = np.append(np.diff(owner) != 0, True)
    n, m, more = program.columns, len(members), int((~last).sum())
    wide = widen_columns(program, np.zeros(more), np.ones(more), integer=True)
    binary = Csr((np.ones(more), (owner[~last], n + np.arange(more))), shape=(len(program.sos1), n + more))  # sum b, set by set
    own = Csr((np.where(last, 0.0, 1.0), (np.arange(m), n + np.cumsum(~last) - 1)), shape=(m, n + more))
    share = own - sparse.diags_array(last.astype(np.float64)) @ binary[owner]  # b_i, or 1 - sum b_i for the last member
    itself = Csr((np.ones(m), (np.arange(m), members)), shape=(m, n + more))
    free, below = np.full(m, np.inf), np.flatnonzero(low)  # a lower end of 0 is already the bound of the column
    large = np.flatnonzero(np.bincount(owner) > 2)
    rows = (
        Rows(Csr(itself - sparse.diags_array(high) @ share), -free, np.where(last, high, 0.0)),
        Rows(Csr(itself - sparse.diags_array(low) @ share)[below], np.where(last, low, 0.0)[below], free[below]),
        Rows(binary[large], np.full(len(large), -np.inf), np.ones(len(large))),
    )
    return replace(wide.with_rows(*rows), sos1=())


def semi_to_rows(program: Program, semi: SemiContinuous) -> Program:
    """Replace "x is 0 or in [l, u]" by ``l b <= x <= u b`` with a binary b."""
    known = program.implied_bounds[1][semi.columns]
    upper = np.minimum(semi.upper, np.where(np.isfinite(semi.upper), np.inf, known))
    lower = semi.lower
    if not (np.isfinite(lower) & np.isfinite(upper)).all():
        raise UnboundedError(
            f"{np.count_nonzero(~np.isfinite(upper))} semi-continuous variables have no finite upper bound; bound them: a binary needs it"
        )
    n, count = program.columns, len(semi.columns)
    wide, each = widen_columns(program, np.zeros(count), np.ones(count), integer=True), np.arange(count)
    place = (np.concatenate([each, each]), np.concatenate([semi.columns, n + each]))
    rows = [Csr((np.concatenate([np.ones(count), -end]), place), shape=(count, n + count)) for end in (upper, lower)]
    free, zero = np.full(count, np.inf), np.zeros(count)
    return replace(wide.with_rows(Rows(rows[0], -free, zero), Rows(rows[1], zero, free)), semi=None)


def sos2_to_rows(program: Program) -> Program:
    """Replace SOS2 sets by a binary per pair of neighbours, which says that only this pair may be nonzero."""
    lower, upper = program.implied_bounds
    members = np.concatenate(program.sos2)
    infinite = ~(np.isfinite(lower[members]) & np.isfinite(upper[members]))
    if infinite.any():
        raise UnboundedError(f"{np.count_nonzero(infinite)} members of SOS2 sets have no finite bounds; bound them")
    count = sum(len(one) - 1 for one in program.sos2)
    wide = widen_columns(program, np.zeros(count), np.ones(count), integer=True)
    return replace(wide.with_rows(_sos2_rows(program.sos2, lower, upper, program.columns)), sos2=())


def _sos2_rows(sets: Sequence[Columns], lower: Array, upper: Array, columns: int) -> Rows:
    """Return the rows of SOS2 sets, whose binaries are appended to the columns, one per pair.

    With ``s_i`` the sum of the binaries of the pairs that contain member i, ``l_i s_i <= x_i <= u_i s_i``; the binaries of a set sum to 1.
    """
    data, row, column, low, high = list[float](), list[int](), list[int](), list[float](), list[float]()
    start = columns

    def add(entries: dict[int, float], least: float, most: float) -> None:
        row.extend([len(low)] * len(entries))
        column.extend(entries)
        data.extend(entries.values())
        low.append(least)
        high.append(most)

    for members in sets:
        pairs = len(members) - 1
        for i, j in enumerate(members.tolist()):
            own = [start + pair for pair in (i - 1, i) if 0 <= pair < pairs]
            add({j: 1.0, **dict.fromkeys(own, -float(upper[j]))}, -np.inf, 0.0)
            if lower[j] < 0:
                add({j: 1.0, **dict.fromkeys(own, -float(lower[j]))}, 0.0, np.inf)
        add(dict.fromkeys(range(start, start + pairs), 1.0), 1.0, 1.0)
        start += pairs
    return Rows(Csr((data, (row, column)), shape=(len(low), start)), np.array(low), np.array(high))


def widen_columns(program: Program, lower: Array, upper: Array, *, integer: bool) -> Program:
    """Return the program with further columns of cost 0 at the end."""
    more = len(lower)
    matrix = Csr(sparse.hstack([program.rows.matrix, Csr((len(program.rows), more))], format="csr"))
    return replace(
        program,
        cost=np.concatenate([program.cost, np.zeros(more)]),
        quadratic=None if program.quadratic is None else Csr(sparse.block_diag([program.quadratic, Csr((more, more))], format="csr")),
        rows=Rows(matrix, program.rows.lower, program.rows.upper),
        lower=np.concatenate([program.lower, lower]),
        upper=np.concatenate([program.upper, upper]),
        integer=np.concatenate([program.integer, np.full(more, integer)]),
        steps=None if program.steps is None else np.concatenate([program.steps, np.full(more, program.steps.max(initial=0))]),
    )
