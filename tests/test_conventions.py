"""The conventions of docs/naming.md that a program can check: signatures, unique names, plain results."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import mipnet

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "mipnet").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])
TREES = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

PARAMETERS_MAX = 8
COMMANDS = "mipnet/app/cli/"
"""A function that Typer turns into a command has one parameter per option of the command line."""

MIRRORS = {("mipnet/readers/torch_ops.py", "batch_norm")}
"""Functions whose parameters are those of a function of another library."""

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the sources of a checkout")


def public_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods without a leading underscore, on the top of a module or of a public class."""
    for file, tree in TREES.items():
        for node in tree.body:
            inside = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
            for each in inside:
                if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                    yield file, each


def test_public_functions_have_few_parameters_and_name_them_all() -> None:
    many, hidden = [], []
    for file, function in public_functions():
        given = function.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs) if each.arg not in ("self", "cls")]
        if len(names) > PARAMETERS_MAX and not file.startswith(COMMANDS) and (file, function.name) not in MIRRORS:
            many.append(f"{file}: {function.name} has {len(names)} parameters")
        if given.kwarg is not None:
            hidden.append(f"{file}: {function.name} hides parameters behind **{given.kwarg.arg}")
    assert not many
    assert not hidden


def test_results_of_several_kinds_have_field_names() -> None:
    """A tuple of three or more results of more than one type is a dataclass or a NamedTuple."""
    bare = []
    for file, function in public_functions():
        returns = function.returns
        if isinstance(returns, ast.Subscript) and ast.unparse(returns.value) == "tuple" and isinstance(returns.slice, ast.Tuple):
            kinds = [ast.unparse(each) for each in returns.slice.elts]
            if len(kinds) >= 3 and "..." not in kinds and len(set(kinds)) > 1:
                bare.append(f"{file}: {function.name} returns {ast.unparse(returns)}")
    assert not bare


def classes() -> Iterator[tuple[str, str]]:
    """The classes of all modules, with their files."""
    for file, tree in TREES.items():
        yield from ((node.name, file) for node in tree.body if isinstance(node, ast.ClassDef))


def constants() -> Iterator[tuple[str, str]]:
    """The constants and type aliases of all modules, with their files."""
    for file, tree in TREES.items():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            for target in (part for each in targets for part in (each.elts if isinstance(each, ast.Tuple) else [each])):
                if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z]\w*", target.id):
                    yield target.id, file


def test_a_class_a_constant_and_a_type_have_a_name_of_their_own() -> None:
    found = defaultdict(list)
    for name, file in (*classes(), *constants()):
        found[name].append(file)
    assert not {name: files for name, files in found.items() if len(files) > 1}


def test_a_constant_carries_its_subject() -> None:
    """A constant is called by more than one word, ``SEARCH_SECONDS_MAX`` and not ``STEPS``, unless it is a name of `mipnet` itself."""
    assert not [f"{file}: {name}" for name, file in constants() if re.fullmatch(r"[A-Z][A-Z0-9]{2,}", name) and name not in mipnet.__all__]
