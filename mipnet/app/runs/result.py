"""The result of a run: what every task returns, and the class that most tasks return."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from mipnet.app.files.base import NetworkFile, SpecFile
from mipnet.arrays import Array
from mipnet.errors import InputError, suggest_keywords
from mipnet.limits.disk import naming
from mipnet.version import __version__

NETCDF_HEAD_BYTES = 2**16
"""About the size of a netCDF file without its numbers."""


INTERRUPTED_STATUS = 130
"""The exit status after Ctrl-C or SIGTERM."""

INTERRUPTED_LINE = "interrupted: this is what was proven by then"
"""The last line of a result that Ctrl-C ended."""


class RunResult(Protocol):
    """The result of a run."""

    @property
    def file(self) -> SpecFile:
        """The YAML file that was run."""

    @property
    def status(self) -> int:
        """The exit status: 0 success, 1 no success, 130 after Ctrl-C."""

    @property
    def record(self) -> Mapping[str, Any]:
        """All results as plain JSON data; ``--json`` prints it, and ``result.json`` holds it."""

    @property
    def lines(self) -> Sequence[str]:
        """The lines that are printed, unless `mipnet.app.screen.report.show_result` has tables for the class of the result."""

    def write_files(self, folder: Path) -> None:
        """Write the files of the run folder other than the YAML file and ``result.json``."""


@suggest_keywords(kinds=False)
@dataclass(frozen=True, eq=False)
class TaskResult:
    """The result of a task that has no further files and no tables: a record, lines to print, whether it succeeded, and warnings.

    Warnings say in plain words why the result may mislead; they are printed after the lines, and are in the record.

    NumPy numbers and arrays in the record become numbers and lists.  Raises `InputError` if something else in it is not JSON data, or
    if ``lines`` is one string.
    """

    file: SpecFile
    record: Mapping[str, Any]
    lines: Sequence[str]
    success: bool = True
    interrupted: bool = False
    warnings: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.lines, str) or not all(isinstance(line, str) for line in self.lines):
            raise InputError(f"the result of task `{self.file.task}` has lines={self.lines!r}; expected a list of strings")
        if not isinstance(self.record, Mapping):
            raise InputError(f"the result of task `{self.file.task}` has record={self.record!r}; expected a dict")
        if self.interrupted:
            object.__setattr__(self, "record", {**self.record, "interrupted": True})
            object.__setattr__(self, "lines", [*self.lines, INTERRUPTED_LINE])
        more = {} if self.warnings is None else {"warnings": list(self.warnings)}
        object.__setattr__(self, "record", plain({**self.record, **more}))
        try:
            json.dumps(self.record, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the record of task `{self.file.task}` is not JSON data: {error}") from None

    @property
    def status(self) -> int:
        """The exit status: 0 success, 1 no success, 130 after Ctrl-C."""
        return exit_status(self.success, self.interrupted)

    def write_files(self, folder: Path) -> None:
        """Write nothing: the run folder has only the YAML file and ``result.json``."""


def exit_status(success: bool, interrupted: bool = False) -> int:
    """Return the exit status: 0 success, 1 no success, 130 after Ctrl-C."""
    return INTERRUPTED_STATUS if interrupted else 0 if success else 1


def task_record(file: NetworkFile, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a task about a network: the version of mipnet, the task, the network, and what was found."""
    about = {"mipnet": __version__, "task": file.task, "network": str(file.path(file.network.file))}
    return {key: plain(value) for key, value in (about | dict(found)).items()}


def write_netcdf(data: xr.Dataset, path: Path, group: str | None = None) -> None:
    """Write a data set to a netCDF file, or add it to the file as a group; raises OSError with the path if the disk takes no more."""
    with naming(path, data.nbytes + NETCDF_HEAD_BYTES):
        if group is None:
            data.to_netcdf(path, engine="netcdf4")
        else:
            data.to_netcdf(path, mode="a", group=group, engine="netcdf4")


def plain(value: Any) -> Any:
    """Return the value as plain JSON data: NumPy numbers and arrays become numbers and lists, infinite numbers and NaN become null."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def as_list(x: Array | None) -> Any:
    """Return an array as nested lists, and None as None."""
    return None if x is None else x.tolist()
