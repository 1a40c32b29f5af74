"""Solving a problem: rewrite it for the backend, start from a forward pass, cut in rounds, and replay the solution.

The solution of a solver is always checked.  It is replayed: the network runs forward in float64 from the input and the scores of the
solution, every variable of the encoding is recomputed, and the reported objective is the one at the recomputed point.  See
`mipnet.solving.result.Result`.
"""

from __future__ import annotations

import time

import linopy

from mipnet.backend import Backend, Limits, OnEvent, Options, get_backend
from mipnet.errors import TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.model.encoding import Encoding
from mipnet.solving.open_problem import open_problem
from mipnet.solving.problem import Problem as Problem
from mipnet.solving.problem import Start as Start
from mipnet.solving.result import Result as Result
from mipnet.solving.result import unsolved_result
from mipnet.solving.write_back import write_back


@suggest_keywords
def solve(
    problem: Encoding | linopy.Model | Problem,
    backend: str | Backend = "highs",
    *,
    time_limit: TimeLimit = None,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    options: Options | None = None,
    start: Start = "forward",
    on_event: OnEvent | None = None,
) -> Result:
    """Solve an encoding with everything that was added to its model, a linopy model, or a `Problem`, and replay the solution.

    Parameters
    ----------
    problem
        The problem.  An `Encoding` stands for the whole model that it is part of.
    backend
        The name of a backend, or a `Backend` object.
    time_limit
        Seconds of the whole call, None for no limit.
    mip_gap
        The gap at which the solve is optimal, relative to the objective: `mipnet.backend.relative_gap`, the gap of the solvers.
    limits
        All limits together, in place of ``mip_gap``; the shorter one of ``limits.time`` and ``time_limit`` holds.  ``gap_abs`` is a
        second gap, in the units of the objective: the solve is optimal if one of the two is reached.  ``bound_stop`` and
        ``objective_stop`` are in the sense of the model: a maximisation stops with status `target reached` if its bound is at most
        ``bound_stop``, or the objective of a feasible point is at least ``objective_stop``.
    options
        Options of the solver by their names in the solver; an unknown one raises `OptionError`.
    start
        ``"forward"``: the first incumbent is a forward pass at the centre of the input set, with all scores 1; if rows of a model with
        networks from `add_network` forbid it, a point near the relaxation's (`mipnet.solving.completed_starts`).  ``"search"``: in
        addition, gradient steps from there and from random points compute better ones before the solve, and during the solve whenever
        the solver asks for points (`mipnet.solving.gradient_search`), in at most a tenth of the time.  ``"none"``: no start.  Or a full
        point by variable label.
    on_event
        Called with every `Event`; an exception that it raises stops the solve and is raised again.

    The model gets the solution, as by linopy's own ``model.solve``: ``x.solution``, ``model.objective.value``, ``model.status`` (`ok` with
    a point, `warning` without one), ``model.termination_condition``, and ``model.dual`` of a linear program that HiGHS solved.
    `OpenProblem.solve` leaves the model as it is.

    Ctrl-C returns the best point so far, with ``interrupted`` True, and with status `interrupted` unless the solve had ended.  To solve one
    problem many times, see `open_problem`.
    """
    deadline = Deadline.after(time_limit)
    deadline = deadline if limits is None else deadline.within(limits.time)
    began = time.perf_counter()
    try:
        opened = open_problem(problem, backend, options=options, time_limit=deadline)
    except TimeLimitReached as error:
        result = unsolved_result(get_backend(backend), time.perf_counter() - began, str(error), maximise=_maximises(problem))
    else:
        with opened:
            result = opened.solve(time_limit=deadline, mip_gap=mip_gap, limits=limits, start=start, on_event=on_event)
    if isinstance(problem, Encoding | linopy.Model):
        write_back(problem.model if isinstance(problem, Encoding) else problem, result)
    return result


def _maximises(problem: Encoding | linopy.Model | Problem) -> bool:
    if isinstance(problem, Problem):
        return problem.program.maximise
    model = problem.model if isinstance(problem, Encoding) else problem
    return str(model.objective.sense) == "max"
