"""The calls of one `highspy.Highs` object: the program, the options and limits, the callbacks, and the points that come by them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Limits, Options, PointSource, Program, Session
from mipnet.backend.checks import warn_dropped
from mipnet.backend.progress import SolveProgress, run_in_thread
from mipnet_highs.options import expect_ok, set_option, set_options
from mipnet_highs.program_arrays import pass_program
from mipnet_highs.quadratic import pass_quadratic
from mipnet_highs.silent_highs import SilentHighs
from mipnet_highs.statuses import HIGHS_NODES_MAX

POINTS_SEEN_MAX = 4
"""Number of points of a solve, its last ones, that its proof is compared with."""


class HighsCalls(Session):
    """A session's calls of HiGHS; ``_known`` is the best feasible point that is known during a solve, ``_seen`` has the last few points."""

    _source: PointSource | None = None
    _waiting: Array | None = None
    _known: Array | None = None

    def __init__(self, program: Program, options: Options) -> None:
        self._program, self._progress = program, SolveProgress(Limits(), None)
        self._seen: deque[Array] = deque(maxlen=POINTS_SEEN_MAX)
        self._mip = bool(program.integer.any())
        self._highs: Any = SilentHighs()
        set_options(self._highs, options, self._mip, program.rows.matrix.nnz, fine=program.fine)
        self._pass()
        self._subscribe()

    def _pass(self) -> None:
        p = self._program
        pass_program(self._highs, p, p.integer)
        warn_dropped("HiGHS", p.rows.matrix.nnz - self._highs.getNumNz())
        if p.quadratic is not None:
            pass_quadratic(self._highs, p.quadratic)

    def _subscribe(self) -> None:
        h = self._highs
        h.cbLogging += self._on_log
        h.cbMipImprovingSolution += self._on_incumbent
        h.cbMipInterrupt += self._on_mip_check
        h.cbMipUserSolution += self._on_user_solution
        h.cbSimplexInterrupt += self._on_lp_check
        h.cbIpmInterrupt += self._on_lp_check

    def _on_log(self, event: Any) -> None:
        self._progress.log(event.message)

    def _on_incumbent(self, event: Any) -> None:
        data = event.data_out
        x = np.array(data.mip_solution)
        self._seen.append(x)
        self._progress.incumbent(data.objective_function_value, data.mip_node_count, x)

    def _on_mip_check(self, event: Any) -> None:
        data = event.data_out
        self._progress.incumbent(data.mip_primal_bound, data.mip_node_count)
        self._progress.bound(data.mip_dual_bound, data.mip_node_count)
        self._on_lp_check(event)

    def _on_user_solution(self, event: Any) -> None:
        # HiGHS does not show the solution of its relaxation here, and checks the points that it gets
        point, self._waiting = self._waiting, None
        if point is None and self._source is not None:
            point = self._progress.call(self._source, None)
        if point is not None:
            self._remember(point)
            self._seen.append(point)
            event.data_in.setSolution(np.ascontiguousarray(point, dtype=np.float64))

    def _on_lp_check(self, event: Any) -> None:
        # set in every call, also to False: HiGHS keeps the flag of an earlier, interrupted solve
        event.interrupt(self._progress.should_stop)

    @contextmanager
    def _options(self, options: dict[str, object]) -> Iterator[None]:
        """Set options for a while."""
        before = {name: self._highs.getOptionValue(name)[1] for name in options}
        for name, value in options.items():
            set_option(self._highs, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                set_option(self._highs, name, value)

    def _limit(self, limits: Limits, time: float) -> None:
        # the clock of LPs runs on from solve to solve, that of MIPs starts at 0
        begun = 0.0 if self._mip else self._highs.getRunTime()
        set_option(self._highs, "time_limit", begun + max(0.0, time))
        set_option(self._highs, "mip_rel_gap", limits.gap)
        set_option(self._highs, "mip_abs_gap", limits.gap_abs)
        set_option(self._highs, "mip_max_nodes", HIGHS_NODES_MAX if limits.nodes is None else min(limits.nodes, HIGHS_NODES_MAX))
        target = -math.inf if limits.objective_stop is None else limits.objective_stop
        set_option(self._highs, "objective_target", target)

    def _run(self) -> Any:
        def work() -> None:
            self._highs.run()
            self._highs.resetGlobalScheduler(False)  # its worker threads belong to this thread

        run_in_thread(work, self.interrupt)
        return self._highs.getModelStatus()

    def _cost(self, cost: Array) -> None:
        expect_ok(self._highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost), "the costs")

    def _forget(self) -> None:
        """Begin a solve: points of an earlier one may be feasible no more."""
        self._known = None
        self._seen.clear()

    def _remember(self, x: Array | None) -> None:
        """Keep a point if it is better than all others so far, and feasible."""
        if x is not None and self._better(x, self._known) and self._feasible(x):
            self._known = np.array(x)

    def _feasible(self, x: Array) -> bool:
        """Return True if HiGHS counts a start as feasible, by its tolerance."""
        return self._program.violation(x) <= self._tolerance

    @property
    def _tolerance(self) -> float:
        return float(self._highs.getOptionValue("mip_feasibility_tolerance")[1])

    def _better(self, start: Array, x: Array | None) -> bool:
        """Return True if a start has a smaller objective than the point of HiGHS: it may stop before it sees the start."""
        return x is None or bool(self._program.cost @ start < self._program.cost @ x)
