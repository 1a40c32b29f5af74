"""Importance: a score in [0, 1] for every unit, by the effect of pruning them together (OAMIP).

ElAraby, Wolf and Carvalho, "Identifying Critical Neurons in ANN Architectures using Mixed Integer Programming" (CPAIOR 2023).
Every gated unit carries a score s (see `mipnet.network.gates`), shared by the images of a small batch; the program trades sparsity
against the loss of the gated network on that batch::

    minimise   S  +  weight * mean over images of loss(logits, label)
    I_l = (1 / N_l) sum_i (s_i - 2)          for each gated layer l
    S   = sum of the n - 1 largest of the n I_l   (``layers="paper"``; n = 1: S = I_1),   or of all of them (``"all"``)

The sum of the n - 1 largest is linear: ``(n-1) q + sum_l r_l`` with ``r_l >= I_l - q, r_l >= 0``.  A larger weight prunes less.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.bounds.interval import Mode
from mipnet.errors import InputError
from mipnet.model.encoding import Encoding, Formulation, encode
from mipnet.model.losses import Loss, add_loss
from mipnet.network.gates import Gate, find_gates
from mipnet.network.graph import Network
from mipnet.network.sets import Samples
from mipnet.pruning.importance.frozen import Pattern
from mipnet.pruning.importance.reduced import Reduced, pose_reduced
from mipnet.pruning.importance.sparsity import Layers, Normalize, add_sparsity
from mipnet.solving.engine import Result, solve


@dataclass(frozen=True, eq=False)
class Importance:
    """The importance question: a network, a few labelled images, and how to weigh sparsity against loss.

    ``normalize`` chooses N_l: ``units`` the number of units; ``paper`` the same, but ``units * kernel rows * kernel cols`` for
    a convolution, as in the reference code; ``parameters`` such that a layer weighs in proportion to its parameters.
    ``bounds`` is ``paper`` (the published program) or ``sound``; see `mipnet.model.encoding`.  ``kind`` makes scores binary.
    """

    network: Network
    images: ArrayLike
    labels: ArrayLike
    loss: Loss = Loss()  # noqa: RUF009  (frozen)
    weight: float = 5.0
    normalize: Normalize = "units"
    layers: Layers = "paper"
    gates: str | Sequence[str] = "all"
    kind: Literal["continuous", "binary"] = "continuous"
    formulation: Formulation | None = None
    bounds: Mode = "paper"
    pattern: Pattern = "free"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"the loss weight is {self.weight}; expected a number of at least 0")
        for name, given, choices in (
            ("normalize", self.normalize, ("units", "parameters", "paper")),
            ("layers", self.layers, ("paper", "all")),
            ("kind", self.kind, ("continuous", "binary")),
            ("pattern", self.pattern, ("free", "upper", "paper")),
        ):
            if given not in choices:
                raise InputError(f"`{name}` is `{given}`; expected one of {', '.join(choices)}")
        if self.frozen and self.bounds != "paper":
            raise InputError(f"the frozen formulation has the paper's bounds; `bounds` is `{self.bounds}`: leave it out, or use `big-m`")
        if not self.epsilon >= 0:
            raise InputError(f"`epsilon` is {self.epsilon}; expected a number of at least 0")

    @property
    def frozen(self) -> bool:
        """True if ``formulation`` asks for the reduced-space program."""
        return (self.formulation or {}).get("relu") == "frozen"

    def pose(self) -> Encoding | Reduced:
        """The program: the gated network on the images, with the objective above; `mipnet.solve` takes it."""
        return self.pose_weighted()[0]

    def pose_weighted(self) -> tuple[Encoding | Reduced, Callable[[float], Any]]:
        """The program, and its objective at any loss weight, as `mipnet.OpenProblem.set_objective` takes it."""
        self._warn_if_on_edge()
        gates = find_gates(self.network, self.gates)
        if not gates:
            raise InputError("the network has no layer that can carry gates: all its dense and convolution layers feed the output directly")
        if self.frozen:
            reduced = pose_reduced(self)
            return reduced, reduced.costs_at
        encoding = encode(
            self.network,
            Samples(self.images),
            formulation=self.formulation,
            bounds=self.bounds,
            gates=gates,
            binary_gates=self.kind == "binary",
            epsilon=self.epsilon,
        )
        loss = add_loss(encoding, self.labels, self.loss)
        sparsity = add_sparsity(encoding, self.normalize, self.layers)
        encoding.model.add_objective(sparsity + self.weight * loss)
        return encoding, lambda weight: sparsity + weight * loss

    def _warn_if_on_edge(self) -> None:
        pattern_rows = self.bounds == "paper" and (not self.frozen or self.pattern != "free")
        if self.kind == "binary" and pattern_rows and self.epsilon < 1e-3:
            warnings.warn(
                f"binary scores under the paper's bounds with epsilon {self.epsilon:g}: rows of the pattern then turn on less than solvers'"
                " tolerances, and two solvers may answer differently; take `bounds: sound`, or epsilon of at least 1e-3",
                RuntimeWarning,
                stacklevel=4,
            )

    def read(self, posed: Encoding | Reduced, result: Result) -> Scores:
        """The scores of a solved program, and what they cost."""
        return Scores(posed.gates, None if result.x is None else read_scores(posed, result.x), result)


@dataclass(frozen=True, eq=False)
class Scores:
    """``scores`` holds one array a gate, labelled by unit, or is None if no point was found; ``result`` tells of the solve."""

    gates: tuple[Gate, ...]
    scores: xr.Dataset | None
    result: Result


def importance(network: Network, images: ArrayLike, labels: ArrayLike, *, backend: Any = "highs", **options: Any) -> Scores:
    """Pose, solve and read in one call: ``importance(net, x, y, weight=5, bounds="paper", time_limit=60).scores``.

    Keyword arguments that `Importance` knows go there (``weight``, ``loss``, ``normalize``, ...), the others to `mipnet.solving.engine`.
    """
    own = {key: options.pop(key) for key in list(options) if key in Importance.__dataclass_fields__}
    if isinstance(own.get("loss"), str):
        own["loss"] = Loss(own["loss"])
    task = Importance(network, images, labels, **own)
    encoding = task.pose()
    return task.read(encoding, solve(encoding, backend, **options))


def read_scores(posed: Encoding | Reduced, x: xr.Dataset) -> xr.Dataset:
    """The scores of each gate, clipped into [0, 1]."""
    names = {gate.name: gate.name if isinstance(posed, Reduced) else posed.scores[gate.name].name for gate in posed.gates}
    return xr.Dataset({gate: x[name].clip(0.0, 1.0) for gate, name in names.items()}, attrs={"title": "1 = critical, 0 = prunable"})
