"""Runs of the tests with a fault: each in a process forked from one that has the libraries loaded, so no file is changed."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TEST_SECONDS_MAX = 8.0
"""Tests that take longer without a fault are left out."""
RUN_SECONDS_MIN = 60.0


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


@dataclass
class _Timings:
    """A plugin of pytest that leaves out slow tests, runs the fast ones first, and notes how long each takes."""

    known: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if self.known.get(item.nodeid, 0.0) <= TEST_SECONDS_MAX),
            key=lambda item: self.known.get(item.nodeid, 0.0),
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
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


def _child(path: str, text: str | None, tests: Sequence[str], known: dict[str, float], pipe: int) -> None:
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if text is not None:
        sys.meta_path.insert(0, _Finder(module_name(path), _Source(ROOT / path, text)))
    timings = _Timings(known)
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[timings])
    lines = [
        f"code {int(code)}",
        *(f"failed {name}" for name in timings.failed),
        *(f"{s:.4f} {name}" for name, s in timings.seconds.items()),
    ]
    data = "\n".join(lines).encode()
    while data:
        data = data[os.write(pipe, data) :]


def run_tests(path: str, text: str | None, tests: Sequence[str], known: dict[str, float]) -> tuple[list[str], float]:
    """Return the report of the tests with ``text`` as the source of a module (None: as it is), and the seconds that they took."""
    begin, limit = time.monotonic(), RUN_SECONDS_MIN + 3 * sum(s for s in known.values() if s <= TEST_SECONDS_MAX)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(read)
            _child(path, text, tests, known, write)
        finally:
            os._exit(0)
    os.close(write)
    chunks, ended = list[bytes](), False
    while not ended:
        if not select.select([read], [], [], max(0.0, begin + (limit if known else 3600.0) - time.monotonic()))[0]:
            os.killpg(pid, signal.SIGKILL)
            chunks = [b"endless"]
            break
        chunk = os.read(read, 1 << 16)
        ended = not chunk
        chunks.append(chunk)
    os.close(read)
    os.waitpid(pid, 0)
    return b"".join(chunks).decode().splitlines(), time.monotonic() - begin


def baseline(path: str, tests: Sequence[str]) -> dict[str, float]:
    """Return the seconds of each test without a fault; raises `RuntimeError` if one fails."""
    lines, _ = run_tests(path, None, tests, {})
    if not lines or lines[0] != "code 0":
        raise RuntimeError(f"the tests {' '.join(tests)} fail without a fault: {lines[:3]}")
    return {name: float(seconds) for seconds, _, name in (line.partition(" ") for line in lines[1:])}


def try_fault(path: str, text: str, tests: Sequence[str], known: dict[str, float]) -> Outcome:
    """Run the tests with a fault."""
    lines, seconds = run_tests(path, text, tests, known)
    if lines == ["endless"]:
        return Outcome("endless", "", seconds)
    failed = [line.removeprefix("failed ") for line in lines if line.startswith("failed ")]
    survived = bool(lines) and lines[0] == "code 0"
    return Outcome("survived" if survived else "caught", failed[0] if failed else "", seconds)
