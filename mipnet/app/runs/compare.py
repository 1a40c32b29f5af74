"""The run of `mipnet compare`: importance scores, solved for or read from a run folder, against rivals at several shares.

Rivals see the images of the program; all methods are evaluated on the held-out images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mipnet.app.figures import save_curve
from mipnet.app.files.base import home_path
from mipnet.app.files.compare_file import CompareFile
from mipnet.app.files.solve_file import SolveFile, load_spec
from mipnet.app.runs.folder import save_result
from mipnet.app.runs.inputs import ImportanceInputs, read_inputs
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import INTERRUPTED_STATUS, exit_status, plain, write_netcdf
from mipnet.app.runs.resume import remove_finished_parts, resumable
from mipnet.app.runs.solve import run_importance
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.kept_parts import PackedPart, kept_parts
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.gates import Gate, find_gates
from mipnet.pruning.rivals.comparison import ComparisonSettings, compare
from mipnet.pruning.rivals.comparison_table import ComparisonTable
from mipnet.pruning.smaller.ranking import at_share, checked_scores
from mipnet.readers.data import Dataset
from mipnet.version import __version__

SCORES_TIME_SHARE = 0.5
"""Share of the time limit of a comparison for its own scores; the rivals get the rest."""


@dataclass(frozen=True, eq=False)
class ComparisonRun:
    """The result of a comparison: the solve file, the scores, the table of methods, and the record of the run that gave the scores.

    Without a solution there are no scores and no table.
    """

    file: CompareFile
    solve_file: SolveFile
    scores: xr.Dataset | None
    table: ComparisonTable | None
    run: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The exit status: 0 if the solution of the scores is verified, 1 if not, 130 after Ctrl-C in the solve."""
        interrupted = (self.file.scores is None and self.run["interrupted"]) or (self.table is not None and self.table.interrupted)
        return exit_status(self.table is not None and self.run["verified"], interrupted)

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes; `mipnet.app.screen.compare_tables` has the table."""
        return self.notes

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes: why there is no table, or why its numbers may mislead."""
        if self.table is None:
            return ("no point was found, so there is nothing to compare: set a longer time limit, or use fewer images",)
        data = self.solve_file.data
        same_split = f"the held-out images are of the `{data.split}` split, which contains the images of the scores"
        left_out = self.table.left_out
        return (
            *((f"the time limit ended before {', '.join(left_out)} were compared",) if left_out and not self.table.interrupted else ()),
            *((same_split,) if data.holdout == data.split else ()),
            *(("the comparison was interrupted: the rivals that are not in the table were not run",) if self.status == 130 else ()),
            *(() if self.run["verified"] else ("the scores come from a point that did not survive its replay: do not trust them",)),
        )

    @property
    def record(self) -> dict[str, Any]:
        """All numbers as plain JSON data: the rows of the table, and under ``run`` the record of the solve."""
        table = {} if self.table is None else self.table.to_dict()
        beaten = {} if self.table is None else {f"{target:g}": self.table.beaten(target) for target in self.table.targets}
        record = {
            "mipnet": __version__,
            "task": "compare",
            **table,
            "beaten": beaten,
            "notes": self.notes,
            "warnings": self.warnings,
            "run": dict(self.run),
        }
        return {key: plain(value) for key, value in record.items()} | {"output": self.file.output}

    def write_files(self, folder: Path) -> None:
        """Write the table, the scores and the curve; nothing without a solution."""
        if self.table is None or self.scores is None:
            return
        (folder / "table.md").write_text(self.table.to_markdown())
        write_netcdf(self.scores, folder / "scores.nc")
        save_curve(self.table, folder / "curve.svg", folder / "curve.png")


class ScoresWithRecord(NamedTuple):
    """Importance scores, None if no solution was found, and the record of the run that they are of."""

    scores: xr.Dataset | None
    run: dict[str, Any]


@carries_warnings
def run_comparison(file: CompareFile, listener: RunListener | None = None, *, resume: bool = False) -> ComparisonRun:
    """Solve for scores or read them, and compare them with rivals; mistakes in the file are found before anything is solved.

    With ``resume`` the scores and the rivals that an earlier run has finished are not computed again.
    """
    deadline = NO_DEADLINE if file.solve is None else Deadline.after(file.solve.time_limit)
    with resumable(file, resume):
        return _run(file, listener or RunListener(), deadline)


def _run(file: CompareFile, listener: RunListener, deadline: Deadline) -> ComparisonRun:
    stored = None if file.scores is None else home_path(file.scores)
    solve_file = file.solve_file() if stored is None else _stored_file(file, stored)
    with file.blame(*(("solve", "path") if stored is None else ("scores",))):
        if solve_file.solve.path is not None:
            raise InputError("a comparison is about one set of scores, and a path has many; leave it out")
    inputs = read_inputs(solve_file, deadline)
    gates = find_gates(inputs.network, solve_file.gates.layers)
    holdout = _checked_holdout(file, solve_file, inputs, gates)
    if stored is None:
        kept = kept_parts("scores", {"question": inputs.question, "split": inputs.split, "holdout": inputs.holdout})
        solved = partial(_solved, solve_file, listener, deadline.share(SCORES_TIME_SHARE))
        found = kept.once("scores", solved, _packed_scores, _read_scores)
    else:
        found = _stored_scores(file, stored, gates)
    interrupted = stored is None and bool(found.run["interrupted"])
    table = (
        None if found.scores is None else _table(file, inputs, holdout, gates, found.scores, listener, deadline, interrupted=interrupted)
    )
    return ComparisonRun(file, solve_file, found.scores, table, found.run)


def _solved(solve_file: SolveFile, listener: RunListener, deadline: Deadline) -> ScoresWithRecord:
    done = run_importance(solve_file, listener, time_limit=deadline)
    return ScoresWithRecord(done.scores, done.record)


def _packed_scores(found: ScoresWithRecord) -> PackedPart | None:
    return None if found.scores is None or found.run["interrupted"] else PackedPart({"run": found.run}, found.scores)


def _read_scores(record: Mapping[str, Any], scores: xr.Dataset | None) -> ScoresWithRecord:
    return ScoresWithRecord(scores, record["run"])


def save_comparison(result: ComparisonRun) -> Path | None:
    """Write the run folder and return its path; None if the file names none, or there is no table."""
    if result.table is not None:
        return save_result(result)
    if result.status != INTERRUPTED_STATUS:
        remove_finished_parts(result.file)
    return None


def _stored_file(file: CompareFile, folder: Path) -> SolveFile:
    with file.blame("scores"):
        if missing := [name for name in ("model.yaml", "result.json", "scores.nc") if not (folder / name).is_file()]:
            raise InputError(f"`{folder}` has no `{missing[0]}`; expected a run folder of `mipnet solve` with scores")
        return load_spec(folder / "model.yaml")


def _stored_scores(file: CompareFile, folder: Path, gates: tuple[Gate, ...]) -> ScoresWithRecord:
    """Read the scores and the record of a run folder."""
    with file.blame("scores"):
        try:
            with xr.open_dataset(folder / "scores.nc", engine="netcdf4") as opened:
                scores = opened.load()
            run = json.loads((folder / "result.json").read_bytes())
            needed = {key: run[key] for key in ("status", "verified")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"`{folder}` cannot be read ({error}); expected a run folder of `mipnet solve`") from None
        scores = checked_scores(gates, scores)
    return ScoresWithRecord(scores, run | needed)


def _checked_holdout(file: CompareFile, solve_file: SolveFile, inputs: ImportanceInputs, gates: tuple[Gate, ...]) -> Dataset:
    """Return the held-out images; raises for mistakes that would otherwise be found only after the solve."""
    blamed = file if file.scores is None else solve_file
    with blamed.blame("data", "holdout"):
        if inputs.holdout is None:
            raise InputError("got none; expected `train` or `test`: masks are compared on held-out images")
    with file.blame("compare", "shares"):
        equal = xr.Dataset({gate.name: (gate.dim, np.ones(gate.units)) for gate in gates})
        at_share(inputs.network, gates, equal, max(file.compare.shares))
    return inputs.holdout


def _table(
    file: CompareFile,
    inputs: ImportanceInputs,
    holdout: Dataset,
    gates: tuple[Gate, ...],
    scores: xr.Dataset,
    listener: RunListener,
    deadline: Deadline,
    *,
    interrupted: bool,
) -> ComparisonTable:
    given = file.compare
    with file.blame("compare"):
        return compare(
            inputs.network,
            gates,
            scores,
            inputs.images,
            holdout,
            rivals=() if interrupted else None if given.rivals == "all" else given.rivals,
            shares=given.shares,
            settings=ComparisonSettings(
                normalize=given.normalize,
                repeats=given.repeats,
                seed=given.seed,
                on_rival=lambda rival: listener.activity(f"comparing with {rival}"),
                time_limit=deadline,
            ),
        )
