"""The run of `mipnet solve`: the importance program or programs, scores, evaluation, and the run folder."""

from __future__ import annotations

import time
from contextlib import nullcontext

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.decoupled import run_decoupled
from mipnet.app.runs.evaluation import check_agree, evaluate, solve_deadline
from mipnet.app.runs.folder import check_output
from mipnet.app.runs.importance_run import ImportanceRun, SolvedProgram
from mipnet.app.runs.inputs import ImportanceInputs, build_program, find_backend, limits_of, read_inputs
from mipnet.app.runs.listener import RunListener, logging_to
from mipnet.app.runs.path_run import run_path
from mipnet.app.runs.resume import resumable
from mipnet.backend import get_backend
from mipnet.errors import InputError, TimeLimitReached
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.gates import find_gates
from mipnet.pruning.importance.program import Scores
from mipnet.solving.engine import solve
from mipnet.solving.result import unsolved_result


@carries_warnings
def run_importance(
    file: SolveFile, listener: RunListener | None = None, *, resume: bool = False, time_limit: TimeLimit = None
) -> ImportanceRun:
    """Solve the importance program of a file, and evaluate the scores; mistakes in the file are found before anything is solved.

    The time limit of the run, reading and evaluation included, is that of the file, or ``time_limit`` if it is shorter; at its end, the
    best solution so far is evaluated.  A decoupled run or a path with ``resume`` goes on from the parts that an earlier run has finished.
    Ctrl-C ends a run with status `interrupted`, and the best solution so far is evaluated; in a decoupled run it raises
    KeyboardInterrupt.
    """
    listener, deadline = listener or RunListener(), Deadline.after(time_limit).within(file.solve.seconds)
    check_output(file)
    if resume and not has_parts(file):
        raise InputError(
            "--resume keeps the parts of a decoupled run or a path, and this is one program (`solve.decouple: none`); leave it out"
        )
    with resumable(file, resume) if has_parts(file) else nullcontext():
        find_backend(file)
        inputs = read_inputs(file, deadline)
        check_agree(file, inputs)
        if file.solve.path is not None:
            return run_path(file, file.solve.path, inputs, listener, deadline)
        run = _run_whole if file.solve.decouple == "none" else run_decoupled
        return run(file, inputs, listener, deadline)


def has_parts(file: SolveFile) -> bool:
    """Return whether a run consists of several programs, each of which is kept once it is solved."""
    return file.solve.decouple != "none" or file.solve.path is not None


def _run_whole(file: SolveFile, inputs: ImportanceInputs, listener: RunListener, deadline: Deadline) -> ImportanceRun:
    began, end, log = time.perf_counter(), solve_deadline(file, deadline), list[str]()
    try:
        posed = build_program(file, inputs, end)
    except TimeLimitReached as error:
        seconds, gates = time.perf_counter() - began, find_gates(inputs.network, file.gates.layers)
        result = unsolved_result(get_backend(file.solve.backend), seconds, str(error))
        return evaluate(
            file, inputs, Scores(gates, None, result), SolvedProgram(result, seconds, len(inputs.images), ()), deadline=deadline
        )
    build_seconds = time.perf_counter() - began
    result = solve(
        posed,
        file.solve.backend,
        time_limit=end,
        limits=limits_of(file),
        options=file.solve.options,
        start=file.solve.start,
        on_event=logging_to(log, listener),
    )
    program = SolvedProgram(result, build_seconds, len(inputs.images), tuple(log))
    return evaluate(file, inputs, inputs.question.read(posed, result), program, deadline=deadline)
