"""Runs of the tests with a fault: each in a process forked from one that has all tests loaded, so no file is changed."""

from __future__ import annotations

import ast
import functools
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from tests.mutants.faults import Fault, statement_lines

ROOT = Path(__file__).parents[2]
TEST_SECONDS_MAX = 8.0
"""Tests that take longer without a fault are left out."""
TESTS_SECONDS_MAX = 40.0
"""The fastest tests that reach a fault are run, as many as take this long together without it."""
RUN_SECONDS_MIN = 30.0
"""A run of the tests may take this long, and three times what the tests take without a fault."""
COLLECTION = "collection"
"""Stands for the name of a test where tests are collected."""


def _codes(code: CodeType) -> list[CodeType]:
    """Return the code objects of a module: its functions, methods and lambdas, and those within them."""
    found = [each for each in code.co_consts if isinstance(each, CodeType)]
    return found + [inner for each in found for inner in _codes(each)]


def _place(code: CodeType) -> tuple[str, tuple[Any, ...]]:
    return code.co_qualname, tuple(code.co_positions())


def _parts(function: FunctionType) -> tuple[Any, ...]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _value(expression: ast.expr, function: FunctionType) -> Any:
    return eval(compile(ast.Expression(expression), function.__code__.co_filename, "eval"), function.__globals__)


def put_in(path: str, source: str, faulty: str) -> None:
    """Give the functions of a loaded module the code and the defaults of the faulty source, and forget what they kept.

    Raises `RuntimeError` if that changes none of them, as where the file is no longer the one that was loaded.
    """
    file = str(ROOT / path)
    old, new = (_codes(compile(text, file, "exec")) for text in (source, faulty))
    named: dict[str, list[CodeType]] = {}
    for each in new:  # a statement that is left out may have had comprehensions of its own
        named.setdefault(each.co_qualname, []).append(each)
    codes = {_place(each): named[each.co_qualname].pop(0) for each in old if named.get(each.co_qualname)}
    gc.unfreeze()  # tests/conftest.py freezes what is there after the collection
    objects = gc.get_objects()
    functions = [each for each in objects if type(each) is FunctionType and each.__code__.co_filename == file]
    before = [_parts(each) for each in functions]
    for each in functions:
        if _place(each.__code__) in codes:  # those that a library wrote, such as the `__init__` of a dataclass, have no source
            each.__code__ = codes[_place(each.__code__)]
    for node in ast.walk(ast.parse(faulty)):
        for each in functions if isinstance(node, ast.FunctionDef) else ():
            if each.__code__.co_name == node.name and each.__code__.co_firstlineno in (
                node.lineno,
                *(d.lineno for d in node.decorator_list),
            ):
                given = {
                    arg.arg: value for arg, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value is not None
                }
                if node.args.defaults:
                    each.__defaults__ = tuple(_value(value, each) for value in node.args.defaults)
                if given:
                    each.__kwdefaults__ = {name: _value(value, each) for name, value in given.items()}
    if before == [_parts(each) for each in functions]:
        raise RuntimeError(f"{path} was changed since it was loaded")
    for each in objects:
        if type(each) is functools._lru_cache_wrapper and str(each.__module__).startswith("mipnet"):
            each.cache_clear()


@dataclass(frozen=True)
class KnownTest:
    """What is known of a test without a fault: the seconds that it takes, and the lines of each module that it runs."""

    seconds: float
    lines: Mapping[str, Sequence[int]]


@dataclass
class _Watch:
    """A plugin of pytest that runs the ``chosen`` tests in their order, and notes which fail.

    If ``chosen`` is None, it runs all, and notes how long each takes and which lines of the ``modules`` it runs.
    """

    modules: Sequence[str]
    chosen: Sequence[str] | None
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = {str(ROOT / path): path for path in self.modules}
        self.begin(COLLECTION)
        if self.chosen is None:
            threading.settrace(self.trace)
            sys.settrace(self.trace)

    def begin(self, name: str) -> None:
        """Note the lines from now on for this test."""
        self.seen = self.lines.setdefault(name, {path: set() for path in self.modules})

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self.trace_line if frame.f_code.co_filename in self.files else None

    def trace_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.seen[self.files[frame.f_code.co_filename]].add(frame.f_lineno)
        return self.trace_line

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.chosen is not None:
            place = {name: k for k, name in enumerate(self.chosen)}
            items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":  # a fixture may serve many tests
            self.seconds[report.nodeid] = report.duration
        if report.failed:
            self.failed.append(report.nodeid)


@dataclass(frozen=True)
class Outcome:
    """How the tests answered a fault: ``caught``, ``survived`` or ``endless`` (caught by the time limit)."""

    word: str
    test: str
    seconds: float


def load(modules: Sequence[str], tests: Sequence[str]) -> KnownTest:
    """Import what the tests need and collect them, once, and return which lines of the modules that runs."""
    import highspy  # noqa: F401
    import linopy  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import pyscipopt  # noqa: F401
    import torch

    torch.set_num_threads(1)
    watch = _Watch(modules, None)
    try:
        code = pytest.main(["--collect-only", "-qq", "--no-summary", "-p", "no:cacheprovider", *tests], plugins=[watch])
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    if code:
        raise RuntimeError(f"the tests {' '.join(tests)} cannot be collected")
    return KnownTest(0.0, {path: sorted(seen) for path, seen in watch.lines[COLLECTION].items()})


@dataclass(frozen=True)
class _Run:
    """A run of the ``chosen`` ones of some tests (None: all of them, traced); the first of the modules may have a fault."""

    modules: Sequence[str]
    tests: Sequence[str]
    chosen: Sequence[str] | None = None
    source: str = ""
    fault: Fault | None = None


def _child(run: _Run, pipe: int) -> None:
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = _Watch(run.modules, run.chosen)
    stop = [] if run.chosen is None else ["-x"]
    code = pytest.main([*stop, "-q", "-p", "no:cacheprovider", *run.tests], plugins=[watch])
    lines = {name: {path: sorted(each) for path, each in seen.items() if each} for name, seen in watch.lines.items()}
    data = json.dumps([int(code), watch.failed, watch.seconds, lines]).encode()
    while data:
        data = data[os.write(pipe, data) :]


def _answer(run: _Run, limit: float) -> list[Any]:
    """Return the exit status of pytest, the tests that failed, the seconds of each test, and the lines that it ran.

    The list is empty if the limit passed, or if the process ended otherwise.
    """
    begin = time.monotonic()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and tests send it
            os.close(read)
            if run.fault is not None:
                put_in(run.modules[0], run.source, run.fault.apply(run.source))
            os.write(write, b" ")  # the fault is in
            _child(run, write)
        finally:
            os._exit(0)
    os.close(write)
    data, ended, late = b"", False, False
    while not ended:
        if not select.select([read], [], [], max(0.0, begin + limit - time.monotonic()))[0]:
            os.killpg(pid, signal.SIGKILL)
            data, late = b"", True
            break
        chunk = os.read(read, 1 << 16)
        ended = not chunk
        data += chunk
    os.close(read)
    os.waitpid(pid, 0)
    if not data and not late:
        raise RuntimeError(f"the fault could not be put in: {run.fault}")
    return json.loads(data) if data.strip() else []


def baseline(modules: Sequence[str], tests: Sequence[str]) -> dict[str, KnownTest]:
    """Return what is known of each test without a fault; tests that fail without one are named and left out."""
    collection = load(modules, tests)
    found = _answer(_Run(modules, tests), 3600.0)
    if not found or found[0] not in (0, 1):
        raise RuntimeError(f"the tests {' '.join(tests)} cannot be run: {found[:2]}")
    _, failed, seconds, lines = found
    for name in failed:
        print(f"left out, as it fails without a fault: {name}")
    return {COLLECTION: collection} | {name: KnownTest(seconds[name], lines[name]) for name in seconds if name not in failed}


def tests_to_run(path: str, lines: range, known: Mapping[str, KnownTest]) -> list[str]:
    """Return the tests that run one of the lines of a module, the fastest first; all, if the lines are run when tests are collected."""
    reach = [name for name, each in known.items() if not set(lines).isdisjoint(each.lines.get(path, ()))]
    reach = [name for name in (known if COLLECTION in reach else reach) if name != COLLECTION]
    chosen, left = list[str](), TESTS_SECONDS_MAX
    for name in sorted(reach, key=lambda name: known[name].seconds):
        left -= known[name].seconds
        if known[name].seconds <= TEST_SECONDS_MAX and left >= 0:
            chosen.append(name)
    return chosen


def try_fault(path: str, source: str, fault: Fault, known: Mapping[str, KnownTest]) -> Outcome:
    """Run the tests that reach a fault."""
    begin, chosen = time.monotonic(), tests_to_run(path, statement_lines(source, fault), known)
    if not chosen:
        return Outcome("survived", "no test reaches it", 0.0)
    files = list(dict.fromkeys(name.partition("::")[0] for name in chosen))
    limit = RUN_SECONDS_MIN + 3 * sum(known[name].seconds for name in chosen)
    found = _answer(_Run([path], files, chosen, source, fault), limit)
    seconds = time.monotonic() - begin
    if not found:
        return Outcome("endless", "", seconds)
    code, failed = found[:2]
    return Outcome("caught" if code else "survived", failed[0] if failed else f"{len(chosen)} tests", seconds)
