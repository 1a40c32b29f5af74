"""What one YAML file makes happen, apart from the screen: question, program or programs, scores, judgement, run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from mipnet.app.figures import save_path
from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.decoupled import Watch, check_resume, run_decoupled
from mipnet.app.runs.folder import check_folder, new_folder
from mipnet.app.runs.inputs import Asked, ask, find_backend, limits_of, pose
from mipnet.app.runs.judge import check_agree, judge
from mipnet.app.runs.path import OnStep, run_path
from mipnet.app.runs.record import Run, to_json
from mipnet.app.runs.resume import remove_parts
from mipnet.backend import Event, OnEvent
from mipnet.solving.engine import solve


def run_importance(
    spec: Spec, on_event: OnEvent | None = None, *, watch: Watch | None = None, on_step: OnStep | None = None, resume: bool = False
) -> Run:
    """Pose, solve and judge the importance question of a spec; whether ``output`` can be written is checked first.

    A question that is solved as one program calls ``on_event``, along a path also ``on_step``; a decoupled one calls ``watch`` and may
    ``resume`` what an earlier run has finished.  Ctrl-C ends a run with status `interrupted`, and the best point so far is judged; out
    of a decoupled one it is raised.
    """
    if spec.output is not None:
        with spec.blame("output"):
            check_folder(Path(spec.output).expanduser())
    check_resume(spec, resume)
    find_backend(spec)
    asked = ask(spec)
    check_agree(spec, asked)
    if spec.solve.path is not None:
        return run_path(spec, asked, on_event, on_step)
    return _run_whole(spec, asked, on_event) if spec.solve.decouple == "none" else run_decoupled(spec, asked, watch)


def _run_whole(spec: Spec, asked: Asked, on_event: OnEvent | None) -> Run:
    began = time.perf_counter()
    posed = pose(spec, asked)
    built, log = time.perf_counter() - began, list[str]()
    result = solve(
        posed,
        spec.solve.backend,
        limits=limits_of(spec),
        options=spec.solve.options,
        start=spec.solve.start,
        on_event=_listener(log, on_event),
    )
    return judge(spec, asked, asked.task.read(posed, result), built, log)


def _listener(log: list[str], on_event: OnEvent | None) -> Callable[[Event], None]:
    def hear(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)
        if on_event is not None:
            on_event(event)

    return hear


def save(run: Run) -> Path | None:
    """Write the run folder, whole or not at all, and return where it is; None if the spec names none."""
    if run.spec.output is None:
        return None
    folder = Path(run.spec.output).expanduser()
    with run.spec.blame("output"), new_folder(folder) as fresh:
        (fresh / "model.yaml").write_text(yaml.safe_dump(run.spec.resolved(), sort_keys=False, allow_unicode=True))
        (fresh / "solver.log").write_text("".join(f"{line}\n" for line in run.log))
        if run.scores is not None and run.masks is not None:
            run.scores.to_netcdf(fresh / "scores.nc", engine="netcdf4")
            run.masks.to_netcdf(fresh / "masks.nc", engine="netcdf4")
        for part in run.parts:
            if part.scores is not None:
                part.scores.to_netcdf(fresh / "parts.nc", mode="a", group=str(part.label), engine="netcdf4")
        if run.path and run.accuracy.reference is not None:
            judged = [(s.value, s.pruned, s.accuracy) for s in run.path if s.pruned is not None and s.accuracy is not None]
            save_path(run.along, judged, run.accuracy.reference, run.held, fresh / "curve.svg")
        (fresh / "result.json").write_text(json.dumps(to_json(run), indent=2, allow_nan=False) + "\n")
    if run.kept is not None:
        remove_parts(run.kept)
    return folder
