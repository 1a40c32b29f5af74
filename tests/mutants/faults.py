"""Single faults of a module: each replaces one small piece of its source, such as ``<`` by ``<=`` or ``lower`` by ``upper``."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
NAME_PAIRS = (
    ("lower", "upper"),
    ("min", "max"),
    ("minimum", "maximum"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("floor", "ceil"),
    ("any", "all"),
    ("infimum", "supremum"),
    ("low", "high"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
)
NAMES = {a: b for a, b in NAME_PAIRS} | {b: a for a, b in NAME_PAIRS}


@dataclass(frozen=True, order=True)
class Fault:
    """One replacement in the source of a module."""

    begin: int
    """Offset of the first character that is replaced."""
    end: int
    old: str
    new: str
    kind: str

    def apply(self, source: str) -> str:
        """Return the source with the fault."""
        return source[: self.begin] + self.new + source[self.end :]

    def describe(self, source: str) -> str:
        """Return the line of the source and what is replaced, for a report."""
        line = source.count("\n", 0, self.begin) + 1
        return f"{line}: `{source.splitlines()[line - 1].strip()}`: `{self.old}` becomes `{self.new}`"


class _Finder(ast.NodeVisitor):
    """Collect the faults within the functions of a module; texts, annotations, decorators and what is raised are left out."""

    def __init__(self, source: str) -> None:
        self.source, self.found, self.depth = source, list[Fault](), 0
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        text = self.source[self.starts[line - 1] : self.starts[line]]
        return self.starts[line - 1] + len(text.encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def add(self, begin: int, end: int, new: str, kind: str) -> None:
        if self.depth:
            self.found.append(Fault(begin, end, self.source[begin:end], new, kind))

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str, kind: str) -> None:
        """Replace an operator between two expressions, unless a bracket or comment stands there, too."""
        begin, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[begin:end]
        if gap.count(old) == 1 and "#" not in gap:
            at = begin + gap.index(old)
            self.add(at, at + len(old), new, kind)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.depth += 1
        for child in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None), *node.body]:
            self.visit(child)
        self.depth -= 1

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add(*self.span(node), "pass", "statement")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(*self.span(node), "pass", "statement")
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        begin, end = self.span(node.test)
        if not isinstance(node.test, ast.UnaryOp | ast.Compare):
            self.add(begin, end, f"not ({self.source[begin:end]})", "condition")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            if type(op) in COMPARISONS:
                self.between(left, right, *COMPARISONS[type(op)], "comparison")
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OPERATORS and not isinstance(node.left, ast.Constant | ast.JoinedStr | ast.List):
            self.between(node.left, node.right, *OPERATORS[type(node.op)], "operator")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, old, new, "logic")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not isinstance(node.op, ast.UAdd) and not isinstance(node.operand, ast.Constant):
            begin = self.span(node)[0]
            self.add(begin, begin + (3 if isinstance(node.op, ast.Not) else 1), "", "sign")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(*self.span(node), str(not node.value), "constant")
        elif isinstance(node.value, int | float):
            self.add(*self.span(node), "1" if node.value == 0 else "0" if node.value != 1 else "2", "constant")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES and isinstance(node.ctx, ast.Load):
            self.add(*self.span(node), NAMES[node.id], "name")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in NAMES and isinstance(node.ctx, ast.Load):
            end = self.span(node)[1]
            self.add(end - len(node.attr), end, NAMES[node.attr], "name")
        self.visit(node.value)


def all_faults(source: str) -> list[Fault]:
    """Return every single fault of a module, in the order of the source."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found))


def statement_lines(source: str, fault: Fault) -> range:
    """Return the lines of the innermost statement with the fault; of a statement with a body, those before its body."""
    line, found = source.count("\n", 0, fault.begin) + 1, range(0)
    for node in ast.walk(ast.parse(source)):  # outer nodes come first
        if isinstance(node, ast.stmt | ast.excepthandler) and node.end_lineno is not None and node.lineno <= line <= node.end_lineno:
            body = getattr(node, "body", None)
            first = body[0].lineno if body else node.end_lineno + 1
            found = range(node.lineno, first if line < first else node.end_lineno + 1)
    return found


def sample(source: str, count: int, seed: int) -> Iterator[Fault]:
    """Yield ``count`` faults (all, if there are fewer) drawn at random, in turn from every kind, in the order of the draw."""
    draw, by_kind = random.Random(seed), dict[str, list[Fault]]()
    for fault in all_faults(source):
        by_kind.setdefault(fault.kind, []).append(fault)
    for faults in by_kind.values():
        draw.shuffle(faults)
    for _ in range(count):
        kinds = [kind for kind in by_kind if by_kind[kind]]
        if not kinds:
            return
        yield by_kind[draw.choices(kinds, [len(by_kind[kind]) for kind in kinds])[0]].pop()
