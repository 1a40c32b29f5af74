"""Runs of the tests with a fault: each in a process forked from one that has the libraries loaded, so no file is changed."""

from __future__ import annotations

import importlib.abc
import importlib.util
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
from types import CodeType, FrameType
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


class _Source(importlib.abc.SourceLoader):
    """Loads one module from a text."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.text.encode()

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, str(self.path), "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module before all others do."""

    def __init__(self, module: str, loader: _Source) -> None:
        self.module, self.loader = module, loader

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(fullname, self.loader) if fullname == self.module else None


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


def module_name(path: str) -> str:
    """Return the name under which the file ``mipnet/a/b.py`` is imported."""
    return path.removeprefix("backends/").removesuffix(".py").replace("/", ".")


def load_libraries() -> None:
    """Import everything that the tests need but mipnet itself, once."""
    import highspy  # noqa: F401
    import linopy  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import pyscipopt  # noqa: F401
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class _Run:
    """A run of the ``chosen`` ones of some tests (None: all of them, traced); the first of the modules may have another source."""

    modules: Sequence[str]
    tests: Sequence[str]
    chosen: Sequence[str] | None = None
    text: str | None = None


def _child(run: _Run, pipe: int) -> None:
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if run.text is not None:
        path = run.modules[0]
        sys.meta_path.insert(0, _Finder(module_name(path), _Source(ROOT / path, run.text)))
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
            os.close(read)
            _child(run, write)
        finally:
            os._exit(0)
    os.close(write)
    data, ended = b"", False
    while not ended:
        if not select.select([read], [], [], max(0.0, begin + limit - time.monotonic()))[0]:
            os.killpg(pid, signal.SIGKILL)
            data = b""
            break
        chunk = os.read(read, 1 << 16)
        ended = not chunk
        data += chunk
    os.close(read)
    os.waitpid(pid, 0)
    return json.loads(data) if data else []


def baseline(modules: Sequence[str], tests: Sequence[str]) -> dict[str, KnownTest]:
    """Return what is known of each test without a fault; tests that fail without one are named and left out."""
    found = _answer(_Run(modules, tests), 3600.0)
    if not found or found[0] not in (0, 1):
        raise RuntimeError(f"the tests {' '.join(tests)} cannot be run: {found[:2]}")
    _, failed, seconds, lines = found
    for name in failed:
        print(f"left out, as it fails without a fault: {name}")
    return {name: KnownTest(seconds.get(name, 0.0), lines[name]) for name in (COLLECTION, *seconds) if name not in failed}


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
    found = _answer(_Run([path], files, chosen, fault.apply(source)), limit)
    seconds = time.monotonic() - begin
    if not found:
        return Outcome("endless", "", seconds)
    code, failed = found[:2]
    return Outcome("caught" if code else "survived", failed[0] if failed else f"{len(chosen)} tests", seconds)
