"""The importance program: a score in [0, 1] for every unit, by the effect of pruning them together (OAMIP).

ElAraby, Wolf and Carvalho, "Identifying Critical Neurons in ANN Architectures using Mixed Integer Programming" (CPAIOR 2023).
Every gated unit has a score s (see `mipnet.network.gates`), shared by the images of a small batch.  The program minimises sparsity plus
the weighted loss of the gated network on that batch::

    minimise   S  +  weight * mean over images of loss(logits, label)
    I_l = (1 / N_l) sum_i (s_i - 2)          for each gated layer l
    S   = sum of the n - 1 largest of the n I_l   (``layers="paper"``; n = 1: S = I_1),   or of all of them (``"all"``)

The sum of the n - 1 largest is linear: ``(n-1) q + sum_l r_l`` with ``r_l >= I_l - q, r_l >= 0``.  A larger weight prunes less.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.backend import Backend, Limits, OnEvent, Options, Status, get_backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Mode
from mipnet.errors import InputError, TimeLimitReached, check_choice, suggest_keywords
from mipnet.formulations.formulation_choice import Formulation
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.model.encode import encode
from mipnet.model.encoding import Encoding
from mipnet.model.losses import add_loss, check_labels
from mipnet.network.gates import Gate, find_gates
from mipnet.network.graph import Network
from mipnet.network.image_check import warn_of_images
from mipnet.network.labelled_samples import align_images_and_labels
from mipnet.network.sets import Samples
from mipnet.pruning.importance.frozen_network import freeze
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.reduced_program import ReducedProgram, reduced_program
from mipnet.pruning.importance.sparsity import add_sparsity
from mipnet.solving.engine import Result, Start, solve
from mipnet.solving.result import unsolved_result

MOVED_ARGUMENTS_OF_QUESTION = {
    **{name: f"write `objective=mn.Objective({name}=...)`" for name in ("weight", "loss", "normalize", "layers")},
    **{name: f"write `bounds=mn.PaperBounds({name}=...)`" for name in ("epsilon", "pattern")},
}
"""What to write instead of arguments that `Importance` does not have any more; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_QUESTION)
@dataclass(frozen=True, eq=False)
class Importance:
    """The importance question: a network, a few labelled images, and the objective.

    Parameters
    ----------
    images, labels
        Images of shape ``(samples, *input shape of the network)``, and their classes.  The losses are those of the logits, with or
        without a softmax at the end of the network.
    objective
        The loss weight, the loss, and the form of the sparsity.
    gates
        ``"all"``, or the names of the layers whose units have scores.
    kind
        ``"continuous"`` or ``"binary"`` scores.
    formulation
        The formulation by kind of layer, as for `mipnet.encode`; ``{"relu": "frozen"}`` asks for the reduced-space program
        (`mipnet.pruning.importance.reduced_program`).
    bounds
        ``"paper"``, or `PaperBounds`, for the published program; else the bounds of `mipnet.encode`, such as ``"sound"``.
    """

    network: Network
    images: ArrayLike
    labels: ArrayLike
    objective: Objective = Objective()  # noqa: RUF009  (frozen)
    gates: str | Sequence[str] = "all"
    kind: Literal["continuous", "binary"] = "continuous"
    formulation: Formulation | None = None
    bounds: Mode | PaperBounds = "paper"

    def __post_init__(self) -> None:
        align_images_and_labels(self)
        if not isinstance(self.bounds, PaperBounds | Bounds):
            check_choice("`bounds`", self.bounds, get_args(Mode))
        if self.frozen and self.paper is None:
            raise InputError(f"the frozen formulation has the paper's bounds; `bounds` is `{self.bounds}`: leave it out, or use `big-m`")

    @property
    def frozen(self) -> bool:
        """True if ``formulation`` asks for the reduced-space program."""
        return (self.formulation or {}).get("relu") == "frozen"

    @property
    def paper(self) -> PaperBounds | None:
        """The published bounds, or None if ``bounds`` asks for others."""
        if isinstance(self.bounds, PaperBounds):
            return self.bounds
        return PaperBounds() if self.bounds == "paper" else None

    @suggest_keywords
    @carries_warnings
    def solve(
        self,
        backend: str | Backend = "highs",
        *,
        time_limit: TimeLimit = None,
        mip_gap: float = 1e-4,
        limits: Limits | None = None,
        options: Options | None = None,
        start: Start = "forward",
        on_event: OnEvent | None = None,
    ) -> Scores:
        """Write the program, solve it and return its scores; the parameters are those of `mipnet.solve`.

        If the time ends before the program is written, ``scores`` is None and the result has no point.
        """
        began, deadline = time.perf_counter(), Deadline.after(time_limit)
        deadline = deadline if limits is None else deadline.within(limits.time)
        try:
            posed = self.pose(time_limit=deadline)
        except TimeLimitReached as error:
            gates, solver = find_gates(self.network, self.gates), get_backend(backend)
            return Scores(gates, None, unsolved_result(solver, time.perf_counter() - began, str(error)))
        warn_of_images(self.network, self.images, self.labels, deadline)
        result = solve(posed, backend, time_limit=deadline, mip_gap=mip_gap, limits=limits, options=options, start=start, on_event=on_event)
        warn_of_solve(result, mip_gap if limits is None else limits.gap)
        return self.read(posed, result)

    def pose(self, *, time_limit: TimeLimit = None) -> Encoding | ReducedProgram:
        """Return the program, for `mipnet.solve`: the gated network on the images, with the objective.

        Raises `TimeLimitReached` if it is not written after ``time_limit`` seconds, None for no limit.
        """
        return self.pose_weighted(time_limit=time_limit)[0]

    def pose_weighted(self, *, time_limit: TimeLimit = None) -> tuple[Encoding | ReducedProgram, Callable[[float], Any]]:
        """Return the program, and a function from a loss weight to its objective, as `mipnet.OpenProblem.set_objective` takes it."""
        self._warn_of_small_epsilon()
        deadline = Deadline.after(time_limit)
        gates = find_gates(self.network, self.gates)
        if not gates:
            raise InputError("the network has no layer that can carry gates: all its dense and convolution layers feed the output directly")
        if self.frozen:
            reduced = self._reduced(gates, deadline)
            return reduced, reduced.costs_at
        encoding = encode(
            self.network.without_softmax(),
            Samples(self.images),
            formulation=self.formulation,
            bounds="paper" if isinstance(self.bounds, PaperBounds) else self.bounds,
            gates=gates,
            binary_gates=self.kind == "binary",
            epsilon=(self.paper or PaperBounds()).epsilon,
            time_limit=deadline,
        )
        loss = add_loss(encoding, self.labels, self.objective.loss)
        sparsity = add_sparsity(encoding, self.objective)
        encoding.model.add_objective(sparsity + self.objective.weight * loss)
        return encoding, lambda weight: sparsity + weight * loss

    def _reduced(self, gates: tuple[Gate, ...], deadline: Deadline) -> ReducedProgram:
        frozen = freeze(self.network, gates, Samples(self.images).fit(self.network.input_shape).lower, deadline)
        labels = check_labels(self.labels, *frozen.logits.shape)
        return reduced_program(frozen, labels, self.objective, self.paper or PaperBounds(), deadline, binary=self.kind == "binary")

    def _warn_of_small_epsilon(self) -> None:
        paper = self.paper
        if self.kind == "binary" and paper is not None and paper.epsilon < 1e-3 and (not self.frozen or paper.pattern != "free"):
            warnings.warn(
                f"binary scores under the paper's bounds with epsilon {paper.epsilon:g}: rows of the pattern then differ by less than"
                " solvers' tolerances, and two solvers may answer differently; take `bounds: sound`, or epsilon of at least 1e-3",
                RuntimeWarning,
                stacklevel=4,
            )

    @suggest_keywords
    def read(self, posed: Encoding | ReducedProgram, result: Result) -> Scores:
        """Return the scores of a solved program, with the result of the solve."""
        return Scores(posed.gates, None if result.x is None else read_scores(posed, result.x), result)


@dataclass(frozen=True, eq=False)
class Scores:
    """Importance scores: ``scores`` holds one array per gate, labelled by unit, or is None if no point was found.

    ``result`` is the result of the solve.  ``warnings`` say why the scores may mislead: a gap that is not closed, images that look
    unscaled, or bounds of a simpler method.
    """

    gates: tuple[Gate, ...]
    scores: xr.Dataset | None
    result: Result
    warnings: tuple[str, ...] = field(default=(), kw_only=True)


def warn_of_solve(result: Result, gap: float) -> None:
    """Add a warning if a solve stopped before the gap was closed, or before there was a point."""
    if result.objective is None and result.status not in (Status.INFEASIBLE, Status.UNBOUNDED):
        add_warning(
            f"the solve stopped ({result.status.value}) without a point, so there are no scores; raise the limit, or give fewer images"
        )
    if result.objective is None or result.status is Status.OPTIMAL or result.gap <= gap:
        return
    size = f"a gap of {100 * result.gap:.2g} %" if math.isfinite(result.gap) else "no finite bound"
    add_warning(f"the solve stopped ({result.status.value}) with {size}: the scores are those of the best point, not proven to be optimal")


MOVED_ARGUMENTS_OF_IMPORTANCE = {
    **{name: f"write `mn.Importance(..., {name}=...).solve(...)`" for name in ("gates", "kind")},
    **{name: f"write `mn.Importance(..., mn.Objective(..., {name}=...)).solve(...)`" for name in ("loss", "normalize", "layers")},
    **{name: f"write `bounds=mn.PaperBounds({name}=...)`" for name in ("epsilon", "pattern")},
    **{name: f"write `mn.Importance(...).solve(..., {name}=...)`" for name in ("mip_gap", "limits", "options", "start", "on_event")},
}
"""What to write instead of arguments that `importance` does not have any more; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_IMPORTANCE)
def importance(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    weight: float = 5.0,
    formulation: Formulation | None = None,
    bounds: Mode | PaperBounds = "paper",
    backend: str | Backend = "highs",
    time_limit: TimeLimit = None,
) -> Scores:
    """Solve an importance question in one call: ``mn.importance(net, x, y, weight=5, time_limit=60).scores``.

    ``time_limit`` is in seconds of the whole call, None for no limit.  ``Importance(...).solve(...)`` takes all other settings: the loss
    and the form of the sparsity (`Objective`), the gates, binary scores, limits and options of the solver.
    """
    question = Importance(network, images, labels, Objective(weight), formulation=formulation, bounds=bounds)
    return question.solve(backend, time_limit=time_limit)


def read_scores(posed: Encoding | ReducedProgram, x: xr.Dataset) -> xr.Dataset:
    """Return the scores of each gate, clipped into [0, 1]."""
    names = {gate.name: gate.name if isinstance(posed, ReducedProgram) else posed.scores[gate.name].name for gate in posed.gates}
    return xr.Dataset({gate: x[name].clip(0.0, 1.0) for gate, name in names.items()}, attrs={"title": "1 = critical, 0 = prunable"})
