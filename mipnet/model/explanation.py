"""What every node of an encoding became, why it was written so, and what a backend makes of it.

Nothing here is told from memory: counts are those of the finished model, and what a backend lacks is rewritten by the very code
that rewrites it before a solve (`mipnet.backend.rewrites`), node by node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import linopy
import numpy as np

from mipnet.arrays import Csr, Mask
from mipnet.backend import Backend, Feature, Indicators, Program, Rows, get_backend
from mipnet.backend.rewrites import lower
from mipnet.errors import MipnetError, UnboundedError
from mipnet.formulations.block import WINDOWS_PART, Block, Phases
from mipnet.formulations.registry import is_affine
from mipnet.model.encoding import Encoding, networks_in
from mipnet.model.to_program import from_model

SETS, INDICATORS, TERMS = "SOS1 sets", "indicator rows", "log-sum-exp terms"


@dataclass(frozen=True)
class Size:
    """Numbers of variables, of binary (or integer) ones among them, and of linear rows."""

    variables: int = 0
    binaries: int = 0
    rows: int = 0

    def __str__(self) -> str:
        numbers = ((self.variables, "variable", "variables"), (self.binaries, "binary", "binaries"), (self.rows, "row", "rows"))
        return ", ".join(f"{number:,} {one if number == 1 else many}" for number, one, many in numbers if number) or "no variables, no rows"


@dataclass(frozen=True)
class Explained:
    """One node, or with ``layer`` empty the rest of the model: inputs, scores, the output, the objective and what users added.

    ``units`` are the elements of its value over all samples.  ``phases`` tell what bounds decide of each of its piecewise-linear
    parts, by suffix: a clip has two, ``low`` and ``high``, and a gate behind an activation has ``above`` and ``below``.  Max pooling
    has `windows`.
    ``formulation`` is empty where there is nothing to choose.  ``special`` counts constraints other than rows by kind; of these the
    backend takes the ``native`` ones as they are, ``rewritten`` says what becomes of the others, ``added`` how large that is,
    and ``error`` why it is impossible.
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
        """How many elements of piecewise-linear parts the bounds leave open."""
        return sum(part.undecided for part in self.phases.values())

    @property
    def contents(self) -> str:
        """Its size and its special constraints in words."""
        special = [f"{number:,} {kind if number > 1 else kind[:-1]}" for kind, number in self.special.items()]
        return ", ".join([str(self.size)] * (self.size != Size() or not special) + special)

    @property
    def taken(self) -> tuple[str, ...]:
        """What the backend makes of its special constraints, in words."""
        added = "" if self.added == Size() else f" ({self.added} more)"
        return (
            *(f"native: {text}" for text in self.native),
            *(f"not native: {text}" for text in (*self.rewritten[:-1], *(text + added for text in self.rewritten[-1:]))),
            *([f"ERROR: {self.error}"] if self.error else []),
        )

    @property
    def decided(self) -> tuple[str, ...]:
        """What bounds decide, a line a part, in words."""
        return tuple(_told(suffix, part) for suffix, part in self.phases.items())

    def __str__(self) -> str:
        head = f"{self.name}: {self.layer}" if self.layer else self.name
        if not self.formulation and self.layer:
            return f"{head}, {self.why}: {self.contents}"
        chosen = f", {self.formulation} ({self.why})" if self.formulation else f", {self.why}"
        units = [f"{self.units:,} units: {self.decided[0]}", *self.decided[1:]] if self.decided else []
        return "\n    ".join([head + chosen, *units, self.contents, *self.taken])


@dataclass(frozen=True)
class Explanation:
    """All nodes of an encoding in order, then the rest of its model; ``backend`` is empty if none was asked about.

    ``handed_over`` is the size of what the backend gets in the end; it is None where that is impossible.
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
        """What is said of a node; raises `KeyError` for an unknown name."""
        return {each.name: each for each in self.nodes}[name]

    @property
    def errors(self) -> tuple[str, ...]:
        """What keeps the backend from taking the program, node by node."""
        return tuple(f"{each.name}: {each.error}" for each in self if each.error)

    def __str__(self) -> str:
        lines = [str(each) for each in self] + [f"in all: {self.size}"]
        if self.relaxed:
            lines.append(f"a relaxation, so that its optimum is a bound: {', '.join(self.relaxed)}")
        if self.backend:
            lines.append(f"{self.backend.partition(' ')[0]} gets: {self.handed_over or 'nothing, see the errors'}")
        return "\n".join(lines)


def explain(encoding: Encoding, backend: str | Backend | None = "highs") -> Explanation:
    """What every node of an encoding became, and why; and how a backend takes it: natively, rewritten, or not at all.

        print(mn.explain(encoding, "scip"))

    ``backend`` None leaves the last part out.  Nothing is solved.  Raises `BackendMissing` for a backend that is not there.
    """
    model, known = encoding.model, None if backend is None else get_backend(backend)
    program = from_model(model, [term for each in networks_in(model) for term in each.convex])
    owner = _owners(encoding, program)
    nodes = []
    for number, block in enumerate(encoding.blocks.values()):
        told = Explained(
            name=block.node.name,
            layer=block.node.layer.label,
            units=int(np.prod(block.shape)),
            phases=dict(block.notes.phases),
            formulation=block.formulation if block.notes.phases or block.variables else "",
            why=_why(encoding, block),
            size=_size(model, block.variables.values(), block.constraints),
            special=dict(block.notes.special_constraints),
        )
        nodes.append(_taken(told, _part(program, owner == number), known))
    total = Size(program.columns, int(program.integer.sum()), len(program.rows))
    rest = _taken(_rest(nodes, program, total), _part(program, owner < 0, convex=True), known)
    if known is None:
        return Explanation(tuple(nodes), rest, encoding.relaxed, total)
    return Explanation(tuple(nodes), rest, encoding.relaxed, total, f"{known.name} {known.version()}", _handed_over(program, known))


def _why(encoding: Encoding, block: Block) -> str:
    if block.formulation and (block.notes.phases or block.variables):
        return (
            block.why
            if any(p.undecided for p in block.notes.phases.values()) or not block.notes.phases
            else f"{block.why}; nothing is undecided"
        )
    if all(encoding.values[name].is_fixed for name in block.node.inputs):
        return "its inputs are numbers, and so is its value"
    return "affine, composed with what reads it" if is_affine(block.node.layer) else "decided, composed with what reads it"


def _rest(nodes: list[Explained], program: Program, total: Size) -> Explained:
    """What the nodes leave of the model."""
    parts = [node.size for node in nodes]
    size = Size(
        total.variables - sum(p.variables for p in parts),
        total.binaries - sum(p.binaries for p in parts),
        total.rows - sum(p.rows for p in parts),
    )
    counts = {
        SETS: len(program.sos1) - sum(node.special.get(SETS, 0) for node in nodes),
        INDICATORS: (len(program.indicators.rows) if program.indicators else 0) - sum(node.special.get(INDICATORS, 0) for node in nodes),
        TERMS: sum(len(term.epigraph) for term in program.convex),
    }
    special = {kind: number for kind, number in counts.items() if number}
    return Explained("the rest", "", 0, {}, "", "inputs, scores, output, objective and what was added", size, special)


def _size(model: linopy.Model, variables: Iterable[linopy.Variable], names: Iterable[str]) -> Size:
    count = {binary: sum(int((v.labels.values >= 0).sum()) for v in variables if v.attrs["binary"] == binary) for binary in (False, True)}
    rows = sum(model.constraints[name].ncons for name in names if not model.constraints[name].is_indicator)
    return Size(count[False] + count[True], count[True], rows)


def _owners(encoding: Encoding, program: Program) -> np.ndarray:
    """For each column the number of the node that made it, or -1."""
    by_label = np.full(encoding.model._xCounter, -1)
    for number, block in enumerate(encoding.blocks.values()):
        for variable in block.variables.values():
            labels = variable.labels.values
            by_label[labels[labels >= 0]] = number
    owner: np.ndarray = by_label[program.labels]
    return owner


def _part(program: Program, mine: Mask, *, convex: bool = False) -> Program:
    """The special constraints whose sets begin, or whose binaries are, among some columns, without any rows."""
    none = Rows(Csr((0, program.columns)), np.empty(0), np.empty(0))
    indicators = program.indicators
    if indicators is not None:
        which = mine[indicators.column]
        indicators = Indicators(indicators.rows.part(which), indicators.column[which], indicators.active[which]) if which.any() else None
    sets = tuple(members for members in program.sos1 if mine[members[0]])
    return replace(program, rows=none, sos1=sets, indicators=indicators, convex=program.convex if convex else ())


def _taken(told: Explained, part: Program, backend: Backend | None) -> Explained:
    """The same with what the backend makes of the node's own constraints."""
    if backend is None:
        return told
    needs = {SETS: Feature.SOS1, INDICATORS: Feature.INDICATOR, TERMS: Feature.LOG_SUM_EXP}
    native = tuple(f"{number:,} {kind}" for kind, number in told.special.items() if needs[kind] in backend.features)
    try:
        lowered = lower(part, backend.features)
    except UnboundedError as error:
        return replace(told, native=native, error=f"{backend.name} does not take them as they are, and {error}")
    done = lowered.program
    added = Size(done.columns - part.columns, int(done.integer.sum() - part.integer.sum()), len(done.rows))
    lacking = told.size.binaries + added.binaries and Feature.INTEGER not in backend.features
    trouble = f"{backend.name} takes no integer variables; take another backend" if lacking else ""
    return replace(told, native=native, rewritten=lowered.rewritten, added=added, error=trouble)


def _handed_over(program: Program, backend: Backend) -> Size | None:
    try:
        done = lower(program, backend.features).program
    except MipnetError:
        return None
    return (
        Size(done.columns, int(done.integer.sum()), len(done.rows))
        if Feature.INTEGER in backend.features or not done.integer.any()
        else None
    )


def _told(suffix: str, part: Phases) -> str:
    if suffix == WINDOWS_PART:
        return f"{part.active:,} windows with a known winner, {part.undecided:,} undecided"
    counts = f"{part.active:,} active, {part.inactive:,} inactive, {part.undecided:,} undecided"
    return f"{suffix} {counts}" if suffix else counts
