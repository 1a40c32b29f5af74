"""The result of `mipnet solve`, and its record as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mipnet.app.figures import CurvePoint, save_path_curve
from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.result import as_list, exit_status, plain, write_netcdf
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from mipnet.solving.engine import Result
from mipnet.verification.two_networks.masked_agreement import BallAgreement, BallAgreements
from mipnet.version import __version__


@dataclass(frozen=True, eq=False)
class SolvedProgram:
    """The result of the solver, the seconds to build the program, the number of its images, and the lines of the solver's log.

    Of a decoupled run and of a path, ``result`` sums up all programs.
    """

    result: Result
    build_seconds: float
    samples: int
    log: tuple[str, ...]


@dataclass(frozen=True)
class PrunedLayer:
    """A layer with parameters: its units before and after pruning, None for a layer without a gate, and its parameters before and after."""

    name: str
    kept: int | None
    units: int | None
    before: int
    after: int


@dataclass(frozen=True)
class Accuracy:
    """Percent right on the held-out images.

    ``reference`` is the accuracy of the whole network, ``masked`` without the units that score below the threshold.  ``random`` and
    ``critical`` are without as many units per layer, chosen at random and by the highest scores.
    """

    reference: float | None = None
    masked: float | None = None
    random: float | None = None
    critical: float | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The smaller network compared with the whole one: layers, accuracy on ``images`` held-out images, and proofs around some of them.

    If Ctrl-C ``interrupted`` the evaluation, what was not measured is None.
    """

    layers: tuple[PrunedLayer, ...]
    accuracy: Accuracy
    images: int
    agreement: BallAgreements | None = None
    interrupted: bool = False

    @property
    def before(self) -> int:
        """Number of parameters of the network."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Number of parameters of the smaller network."""
        return sum(layer.after for layer in self.layers)

    @property
    def pruned(self) -> float:
        """Percent of the parameters that are pruned."""
        return 100.0 * (1 - self.after / self.before)


@dataclass(frozen=True, eq=False)
class DecoupledParts:
    """The parts of a decoupled run, none of other runs.

    Those with a label in ``resumed`` were solved by an earlier run.  ``folder`` keeps the parts until the run folder is written.
    """

    solved: tuple[SolvedPart, ...] = ()
    resumed: frozenset[PartLabel] = frozenset()
    folder: Path | None = None


@dataclass(frozen=True, eq=False)
class EvaluatedPoint:
    """A point of a path: the value of the parameter, the result and masks, percent of the parameters pruned, and percent right."""

    value: float
    result: Result
    masks: xr.Dataset | None
    pruned: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class EvaluatedPath:
    """The points of a path, none of other runs, and the name of the parameter, which is a dimension of scores and masks."""

    parameter: str = ""
    points: tuple[EvaluatedPoint, ...] = ()


@dataclass(frozen=True, eq=False)
class ImportanceRun:
    """The result of `mipnet solve`.  Without a solution there are no scores and no masks, and nothing counts as pruned.

    ``notes`` say what the reader should know about the numbers, ``warnings`` why they may mislead or are not all that was asked for.
    """

    file: SolveFile
    program: SolvedProgram
    scores: xr.Dataset | None
    masks: xr.Dataset | None
    evaluation: Evaluation
    notes: tuple[str, ...]
    decoupled: DecoupledParts = DecoupledParts()
    path: EvaluatedPath = EvaluatedPath()
    warnings: tuple[str, ...] = ()

    @property
    def result(self) -> Result:
        """The result of the solver."""
        return self.program.result

    @property
    def verified(self) -> bool:
        """True if there is a solution, and the network confirms it."""
        return self.scores is not None and self.result.verified

    @property
    def interrupted(self) -> bool:
        """True if Ctrl-C ended the run."""
        return self.result.interrupted or self.evaluation.interrupted

    @property
    def status(self) -> int:
        """The exit status: 0 with a verified solution, 1 without, 130 after Ctrl-C."""
        return exit_status(self.verified, self.interrupted)

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes; `mipnet.app.screen.solve_tables` has tables for all else."""
        return self.notes

    @property
    def record(self) -> dict[str, Any]:
        """All numbers as plain JSON data: a number that is infinite or unknown is null."""
        r, evaluation = self.result, self.evaluation
        copied = ("objective", "bound", "gap", "verified", "max_error", "backend", "version", "nodes", "iterations", "rounds", "cuts")
        record = {
            "mipnet": __version__,
            "task": self.file.task,
            "status": r.status.value,
            "interrupted": self.interrupted,
            **{name: getattr(r, name) for name in copied},
            "runtime_s": r.runtime,
            "build_s": self.program.build_seconds,
            "size": dict(r.size),
            "rewritten": r.rewritten,
            "start_accepted": r.start_accepted,
            "decouple": self.file.solve.decouple,
            "parts": [_part(part, part.label in self.decoupled.resumed) for part in self.decoupled.solved],
            "along": self.path.parameter or None,
            "path": [_point(self.path.parameter, point) for point in self.path.points],
            "samples": self.program.samples,
            "holdout": evaluation.images,
            "layers": {layer.name: {"kept": layer.kept, "total": layer.units} for layer in evaluation.layers if layer.units is not None},
            "params_pruned_percent": evaluation.pruned,
            "parameters": {"before": evaluation.before, "after": evaluation.after},
            "accuracy": asdict(evaluation.accuracy),
            "agree": None if evaluation.agreement is None else _agreement(evaluation.agreement),
            "notes": self.notes,
            "warnings": self.warnings,
            "output": self.file.output,
        }
        if self.path.points:
            record |= {"layers": {}, "params_pruned_percent": None, "parameters": {"before": evaluation.before, "after": None}}
        return {key: plain(value) for key, value in record.items()}

    def write_files(self, folder: Path) -> None:
        """Write the solver's log, the scores and masks if there are any, those of each part, and the curve of a path."""
        (folder / "solver.log").write_text("".join(f"{line}\n" for line in self.program.log))
        if self.scores is not None and self.masks is not None:
            write_netcdf(self.scores, folder / "scores.nc")
            write_netcdf(self.masks, folder / "masks.nc")
        for part in self.decoupled.solved:
            if part.scores is not None:
                write_netcdf(part.scores, folder / "parts.nc", str(part.label))
        reference = self.evaluation.accuracy.reference
        if self.path.points and reference is not None:
            points = [
                CurvePoint(point.value, point.pruned, point.accuracy)
                for point in self.path.points
                if point.pruned is not None and point.accuracy is not None
            ]
            save_path_curve(self.path.parameter, points, reference, self.evaluation.images, folder / "curve.svg")


def _point(parameter: str, point: EvaluatedPoint) -> dict[str, Any]:
    r = point.result
    return {
        parameter: point.value,
        "status": r.status.value,
        "objective": r.objective,
        "bound": r.bound,
        "gap": r.gap,
        "runtime_s": r.runtime,
        "verified": r.verified,
        "params_pruned_percent": point.pruned,
        "accuracy": point.accuracy,
    }


def _part(part: SolvedPart, resumed: bool) -> dict[str, Any]:
    r = part.result
    return {
        "key": part.label,
        "samples": part.samples,
        "status": r.status.value,
        "objective": r.objective,
        "bound": r.bound,
        "gap": r.gap,
        "runtime_s": r.runtime,
        "build_s": part.build_seconds,
        "verified": r.verified,
        "resumed": resumed,
    }


def _agreement(found: BallAgreements) -> dict[str, Any]:
    def one(ball: BallAgreement) -> dict[str, Any]:
        about = {key: getattr(ball, key) for key in ("index", "label", "result", "method", "classes")}
        return about | {"point": as_list(ball.point), "seconds": ball.seconds}

    counts = {result: found.count(result) for result in ("proven", "refuted", "open")}
    return {"radius": found.radius, "clip": found.clip, **counts, "images": [one(ball) for ball in found.balls]}
