"""Explains, per node of an encoding, which formulation was chosen, why, and how a backend rewrites it.

All numbers are counted in the finished model.  Constraints that a backend does not support are rewritten per node by the same code as
before a solve (`mipnet.backend.rewrites`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import linopy
import numpy as np

from mipnet.arrays import Csr, Ints, Mask
from mipnet.backend import Backend, Feature, Indicators, Program, Rows, get_backend
from mipnet.backend.rewrites import rewrite
from mipnet.errors import MipnetError, UnboundedError, suggest_keywords
from mipnet.formulations.block import INDICATOR_ROWS, SOS1_SETS, TREES_PART, WINDOWS_PART, Block, Phases
from mipnet.formulations.registry import is_affine
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.model.encoding import Encoding, networks_in
from mipnet.model.to_program import from_model

LOG_SUM_EXP_TERMS = "log-sum-exp terms"
"""Key of `Explained.special` for convex terms; the other keys are those of `mipnet.formulations.block.BlockNotes`."""

FEATURE_BY_KIND = {SOS1_SETS: Feature.SOS1, INDICATOR_ROWS: Feature.INDICATOR, LOG_SUM_EXP_TERMS: Feature.LOG_SUM_EXP}
"""The feature that a backend needs for each kind of special constraint."""

EXPLAINING_WORK = "explain the program"
"""What a time limit ends, in the words of `Deadline.check`."""


@dataclass(frozen=True)
class Size:
    """Numbers of variables, of binary or integer variables among them, and of linear rows."""

    variables: int = 0
    binaries: int = 0
    rows: int = 0

    def __str__(self) -> str:
        numbers = ((self.variables, "variable", "variables"), (self.binaries, "binary", "binaries"), (self.rows, "row", "rows"))
        return ", ".join(f"{number:,} {one if number == 1 else many}" for number, one, many in numbers if number) or "no variables, no rows"


@dataclass(frozen=True)
class Explained:
    """The explanation of one node, or of the rest of the model (inputs, scores, output, objective, additions), where ``layer`` is empty.

    Attributes
    ----------
    name, layer
        The name of the node, and the name of its layer.
    units
        Number of elements of its value over all samples.
    phases
        Number of elements by phase, per piecewise-linear function of the node.  A Clip has two, with keys ``low`` and ``high``.  A gate
        after an activation has ``above`` and ``below``, max pooling has ``windows``, a tree ensemble ``trees``, and ReLU has one with an
        empty key.
    formulation, why
        The formulation, empty if the node has none, and the reason for it.
    size
        Number of variables, binaries and rows of the node.
    special
        Number of constraints that are not rows, by kind.
    native, rewritten
        Which of these the backend supports, and what the others are rewritten as.
    added
        Number of variables, binaries and rows that the rewrite adds.
    error
        Why the backend cannot take the node; empty if it can.
    """

    name: str
    layer: str
    units: int
    phases: Mapping[str, Phases]
    formulation: str
    why: str
    size: Size
    special: Mapping[str, int]
    native: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    added: Size = Size()
    error: str = ""

    @property
    def undecided(self) -> int:
        """Number of elements whose phase the bounds leave undecided."""
        return sum(phases.undecided for phases in self.phases.values())

    @property
    def size_line(self) -> str:
        """The size and the special constraints as text."""
        special = [f"{number:,} {kind if number > 1 else kind[:-1]}" for kind, number in self.special.items()]
        return ", ".join([str(self.size)] * (self.size != Size() or not special) + special)

    @property
    def phase_lines(self) -> tuple[str, ...]:
        """The phases as text, one line per piecewise-linear function."""
        return tuple(_phase_line(suffix, phases) for suffix, phases in self.phases.items())

    @property
    def backend_lines(self) -> tuple[str, ...]:
        """How the backend takes the special constraints, as text."""
        added = "" if self.added == Size() else f" ({self.added} more)"
        return (
            *(f"native: {text}" for text in self.native),
            *(f"not native: {text}" for text in (*self.rewritten[:-1], *(text + added for text in self.rewritten[-1:]))),
            *([f"ERROR: {self.error}"] if self.error else []),
        )

    def __str__(self) -> str:
        head = f"{self.name}: {self.layer}" if self.layer else self.name
        if not self.formulation and self.layer:
            return f"{head}, {self.why}: {self.size_line}"
        chosen = f", {self.formulation} ({self.why})" if self.formulation else f", {self.why}"
        units = [f"{self.units:,} units: {self.phase_lines[0]}", *self.phase_lines[1:]] if self.phases else []
        return "\n    ".join([head + chosen, *units, self.size_line, *self.backend_lines])


@dataclass(frozen=True)
class Explanation:
    """The explanation of all nodes of an encoding in order, and of the rest of its model.

    ``relaxed`` lists the nodes that are written as a relaxation, and ``size`` is the size of the model.  ``backend`` is the name and
    version of the backend, or empty.  ``handed_over`` is the size of the program that the backend gets, or None if it cannot take it.
    """

    nodes: tuple[Explained, ...]
    rest: Explained
    relaxed: tuple[str, ...]
    size: Size
    backend: str = ""
    handed_over: Size | None = None

    def __iter__(self) -> Iterator[Explained]:
        return iter((*self.nodes, self.rest))

    def __getitem__(self, name: str) -> Explained:
        """Return the explanation of a node; raises `KeyError` for an unknown name."""
        return {each.name: each for each in self.nodes}[name]

    @property
    def errors(self) -> tuple[str, ...]:
        """The reasons why the backend cannot take the program, per node."""
        return tuple(f"{each.name}: {each.error}" for each in self if each.error)

    def __str__(self) -> str:
        lines = [str(each) for each in self] + [f"total: {self.size}"]
        if self.relaxed:
            lines.append(f"written as a relaxation, so the optimum is only a bound: {', '.join(self.relaxed)}")
        if self.backend:
            lines.append(f"{self.backend.partition(' ')[0]} gets: {self.handed_over or 'nothing, see the errors'}")
        return "\n".join(lines)


@suggest_keywords
def explain(encoding: Encoding, backend: str | Backend | None = "highs", time_limit: TimeLimit = None) -> Explanation:
    """Explain, per node, which formulation was chosen, why, and whether a backend supports it, gets it rewritten, or cannot take it.

        print(mn.explain(encoding, "scip"))

    With ``backend=None`` the explanation does not mention a backend.  Nothing is solved.  Raises `BackendMissing` if the backend is not
    installed, and `TimeLimitReached` after ``time_limit`` seconds, None for no limit.
    """
    deadline = Deadline.after(time_limit)
    deadline.check(EXPLAINING_WORK)
    model, known = encoding.model, None if backend is None else get_backend(backend)
    program = from_model(model, [term for each in networks_in(model) for term in each.convex])
    owner = _owners(encoding, program)
    nodes = []
    for number, block in enumerate(encoding.blocks.values()):
        deadline.check(EXPLAINING_WORK)
        node = Explained(
            name=block.node.name,
            layer=block.node.layer.label,
            units=int(np.prod(block.shape)),
            phases=dict(block.notes.phases),
            formulation=block.formulation if block.notes.phases or block.variables else "",
            why=_why(encoding, block),
            size=_size(model, block.variables.values(), block.constraints),
            special=dict(block.notes.special_constraints),
        )
        nodes.append(_with_backend(node, _special_constraints(program, owner == number), known))
    total = Size(program.columns, int(program.integer.sum()), len(program.rows))
    deadline.check(EXPLAINING_WORK)
    rest = _with_backend(_rest(nodes, program, total), _special_constraints(program, owner < 0, convex=True), known)
    if known is None:
        return Explanation(tuple(nodes), rest, encoding.relaxed, total)
    return Explanation(tuple(nodes), rest, encoding.relaxed, total, f"{known.name} {known.version()}", _handed_over(program, known))


def _why(encoding: Encoding, block: Block) -> str:
    """Return the reason for the formulation of a block, or why it has none."""
    phases = block.notes.phases
    if block.formulation and (phases or block.variables):
        undecided = not phases or any(each.undecided for each in phases.values())
        return block.why if undecided else f"{block.why}; nothing is undecided"
    if all(encoding.values[name].is_fixed for name in block.node.inputs):
        return "constant, because its inputs are constant"
    return "affine, no formulation needed" if is_affine(block.node.layer) else "decided by bounds, no formulation needed"


def _rest(nodes: list[Explained], program: Program, total: Size) -> Explained:
    """Return the explanation of all variables and constraints that belong to no node."""
    parts = [node.size for node in nodes]
    size = Size(
        total.variables - sum(p.variables for p in parts),
        total.binaries - sum(p.binaries for p in parts),
        total.rows - sum(p.rows for p in parts),
    )
    counts = {
        SOS1_SETS: len(program.sos1),
        INDICATOR_ROWS: len(program.indicators.rows) if program.indicators else 0,
        LOG_SUM_EXP_TERMS: sum(len(term.epigraph) for term in program.convex),
    }
    left = {kind: number - sum(node.special.get(kind, 0) for node in nodes) for kind, number in counts.items()}
    special = {kind: number for kind, number in left.items() if number}
    return Explained("the rest", "", 0, {}, "", "inputs, scores, output, objective and additions", size, special)


def _size(model: linopy.Model, variables: Iterable[linopy.Variable], names: Iterable[str]) -> Size:
    count = {binary: sum(int((v.labels.values >= 0).sum()) for v in variables if v.attrs["binary"] == binary) for binary in (False, True)}
    rows = sum(model.constraints[name].ncons for name in names if not model.constraints[name].is_indicator)
    return Size(count[False] + count[True], count[True], rows)


def _owners(encoding: Encoding, program: Program) -> Ints:
    """Return, per column, the number of the node that it belongs to, or -1."""
    by_label = np.full(encoding.model._xCounter, -1)
    for number, block in enumerate(encoding.blocks.values()):
        for variable in block.variables.values():
            labels = variable.labels.values
            by_label[labels[labels >= 0]] = number
    owner: Ints = by_label[program.labels]
    return owner


def _special_constraints(program: Program, columns: Mask, *, convex: bool = False) -> Program:
    """Return the program without rows, and with those SOS1 sets and indicator rows only whose first member or binary is in ``columns``."""
    none = Rows(Csr((0, program.columns)), np.empty(0), np.empty(0))
    indicators = program.indicators
    if indicators is not None:
        which = columns[indicators.column]
        indicators = Indicators(indicators.rows.part(which), indicators.column[which], indicators.active[which]) if which.any() else None
    sets = tuple(members for members in program.sos1 if columns[members[0]])
    lower, upper = program.implied_bounds
    own = replace(program, rows=none, sos1=sets, indicators=indicators, lower=lower, upper=upper)
    return own if convex else replace(own, convex=(), sos2=(), semi=None)


def _with_backend(node: Explained, special: Program, backend: Backend | None) -> Explained:
    """Return the explanation of a node completed by how the backend takes its special constraints."""
    if backend is None:
        return node
    native = tuple(f"{number:,} {kind}" for kind, number in node.special.items() if FEATURE_BY_KIND[kind] in backend.features)
    try:
        result = rewrite(special, backend.features)
    except UnboundedError as error:
        return replace(node, native=native, error=f"{backend.name} does not support them, and {error}")
    rewritten = result.program
    binaries = int(rewritten.integer.sum() - special.integer.sum())
    added = Size(rewritten.columns - special.columns, binaries, len(rewritten.rows))
    lacking = node.size.binaries + added.binaries and Feature.INTEGER not in backend.features
    error_text = f"{backend.name} does not support integer variables; use another backend" if lacking else ""
    return replace(node, native=native, rewritten=result.rewritten, added=added, error=error_text)


def _handed_over(program: Program, backend: Backend) -> Size | None:
    """Return the size of the program after all rewrites, or None if the backend cannot take it."""
    try:
        final = rewrite(program, backend.features).program
    except MipnetError:
        return None
    if final.integer.any() and Feature.INTEGER not in backend.features:
        return None
    return Size(final.columns, int(final.integer.sum()), len(final.rows))


def _phase_line(suffix: str, phases: Phases) -> str:
    if suffix == WINDOWS_PART:
        return f"{phases.active:,} windows with a known winner, {phases.undecided:,} undecided"
    if suffix == TREES_PART:
        return f"{phases.active:,} trees with a known leaf, {phases.undecided:,} undecided"
    counts = f"{phases.active:,} active, {phases.inactive:,} inactive, {phases.undecided:,} undecided"
    return f"{suffix} {counts}" if suffix else counts
