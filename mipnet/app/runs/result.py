"""The result of a run: what every task returns, and the class that most tasks return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mipnet.app.files.base import NetworkFile, SpecFile
from mipnet.arrays import Array
from mipnet.errors import suggest_keywords
from mipnet.version import __version__


class RunResult(Protocol):
    """The result of a run."""

    @property
    def file(self) -> SpecFile:
        """The YAML file that was run."""

    @property
    def status(self) -> int:
        """The exit status: 0 success, 1 none, 130 after Ctrl-C."""

    @property
    def record(self) -> Mapping[str, Any]:
        """All results as plain JSON data; ``--json`` prints it, and ``result.json`` holds it."""

    @property
    def lines(self) -> Sequence[str]:
        """The lines that are printed, unless `mipnet.app.screen.report.show_result` has tables for the class of the result."""

    def write_files(self, folder: Path) -> None:
        """Write the files of the run folder other than the YAML file and ``result.json``."""


@suggest_keywords
@dataclass(frozen=True, eq=False)
class TaskResult:
    """The result of a task that has no further files and no tables: a record, lines to print, and whether it succeeded."""

    file: SpecFile
    record: Mapping[str, Any]
    lines: Sequence[str]
    success: bool = True
    interrupted: bool = False

    @property
    def status(self) -> int:
        """The exit status: 0 success, 1 none, 130 after Ctrl-C."""
        return exit_status(self.success, self.interrupted)

    def write_files(self, folder: Path) -> None:
        """Write nothing: the YAML file and ``result.json`` are all there is."""


def exit_status(success: bool, interrupted: bool = False) -> int:
    """Return the exit status: 0 success, 1 none, 130 after Ctrl-C."""
    return 130 if interrupted else 0 if success else 1


def task_record(file: NetworkFile, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a task about a network: the version of mipnet, the task, the network, and what was found."""
    about = {"mipnet": __version__, "task": file.task, "network": str(file.path(file.network.file))}
    return {key: plain(value) for key, value in (about | dict(found)).items()}


def plain(value: Any) -> Any:
    """Return the value as plain JSON data, with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def as_list(x: Array | None) -> Any:
    """Return an array as nested lists, and None as None."""
    return None if x is None else x.tolist()
