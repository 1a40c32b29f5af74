"""What a run found out, as frozen data and as plain JSON data; and a network described the same way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mipnet.app.files.solve_file import Spec
from mipnet.backend import Backend, Status
from mipnet.model.encoding import Encoding
from mipnet.model.explanation import explain
from mipnet.model.to_program import from_model
from mipnet.network.gates import find_gates
from mipnet.network.graph import Network, Node
from mipnet.pruning.importance.parts import PartLabel, SolvedPart
from mipnet.pruning.importance.reduced_program import ReducedProgram
from mipnet.solving.engine import Result
from mipnet.verification.two_networks.masked_agreement import BallAgreement, BallAgreements
from mipnet.version import __version__


@dataclass(frozen=True)
class LayerCount:
    """What is left of a layer with parameters; ``kept`` and ``units`` are None for a layer without a gate."""

    name: str
    kept: int | None
    units: int | None
    before: int
    after: int


@dataclass(frozen=True)
class Accuracy:
    """Percent right on the held-out images: all units, and with as many gone by score, at random, and from the top."""

    reference: float | None = None
    masked: float | None = None
    random: float | None = None
    critical: float | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """A point of a path: the value of the parameter, its result and masks, percent of the parameters pruned, percent right without them."""

    value: float
    result: Result
    masks: xr.Dataset | None
    pruned: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Run:
    """All that a run found out.  Without a point there are no scores and no masks, and nothing counts as pruned.

    A decoupled run has ``parts``, and ``result`` sums them up; those that are ``resumed`` were solved by an earlier run.  They are
    ``kept`` in a folder of their own until the run folder is written.  A run along a ``path`` has that parameter as a dimension of
    scores and masks; ``result`` sums it up, and what is pruned is told of each of its points.  ``agreement`` is what ``prune.agree`` found.
    """

    spec: Spec
    result: Result
    build_seconds: float
    samples: int
    held: int
    scores: xr.Dataset | None
    masks: xr.Dataset | None
    layers: tuple[LayerCount, ...]
    accuracy: Accuracy
    notes: tuple[str, ...]
    log: tuple[str, ...]
    parts: tuple[SolvedPart, ...] = ()
    resumed: frozenset[PartLabel] = frozenset()
    kept: Path | None = None
    along: str = ""
    path: tuple[Step, ...] = ()
    agreement: BallAgreements | None = None

    @property
    def before(self) -> int:
        """Parameters of the network."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Parameters of the smaller network."""
        return sum(layer.after for layer in self.layers)

    @property
    def pruned(self) -> float:
        """Percent of the parameters that are gone."""
        return 100.0 * (1 - self.after / self.before)

    @property
    def good(self) -> bool:
        """True if there is a point and it survived its replay."""
        return self.scores is not None and self.result.verified

    @property
    def interrupted(self) -> bool:
        """True if Ctrl-C ended it."""
        return self.result.status is Status.INTERRUPTED or (self.agreement is not None and self.agreement.interrupted)


def to_json(run: Run) -> dict[str, Any]:
    """The numbers of a run as plain JSON data: a number that is infinite or unknown is null."""
    r = run.result
    copied = ("objective", "bound", "gap", "verified", "max_error", "backend", "version", "nodes", "iterations", "rounds", "cuts")
    record = {
        "mipnet": __version__,
        "task": run.spec.task,
        "status": r.status.value,
        **{name: getattr(r, name) for name in copied},
        "runtime_s": r.runtime,
        "build_s": run.build_seconds,
        "size": dict(r.size),
        "rewritten": r.rewritten,
        "start_accepted": r.start_accepted,
        "decouple": run.spec.solve.decouple,
        "parts": [_part(part, part.label in run.resumed) for part in run.parts],
        "along": run.along or None,
        "path": [_step(run.along, step) for step in run.path],
        "samples": run.samples,
        "holdout": run.held,
        "layers": {c.name: {"kept": c.kept, "total": c.units} for c in run.layers if c.units is not None},
        "params_pruned_percent": run.pruned,
        "parameters": {"before": run.before, "after": run.after},
        "accuracy": asdict(run.accuracy),
        "agree": None if run.agreement is None else _balls(run.agreement),
        "notes": run.notes,
        "output": run.spec.output,
    }
    if run.path:
        record |= {"layers": {}, "params_pruned_percent": None, "parameters": {"before": run.before, "after": None}}
    return {key: plain(value) for key, value in record.items()}


def _step(along: str, step: Step) -> dict[str, Any]:
    r = step.result
    return {
        along: step.value,
        "status": r.status.value,
        "objective": r.objective,
        "bound": r.bound,
        "gap": r.gap,
        "runtime_s": r.runtime,
        "verified": r.verified,
        "params_pruned_percent": step.pruned,
        "accuracy": step.accuracy,
    }


def _balls(found: BallAgreements) -> dict[str, Any]:
    def one(ball: BallAgreement) -> dict[str, Any]:
        point = None if ball.point is None else ball.point.tolist()
        about = {key: getattr(ball, key) for key in ("index", "label", "result", "method", "classes")}
        return about | {"point": point, "seconds": ball.seconds}

    counts = {result: found.count(result) for result in ("proven", "refuted", "open")}
    return {"radius": found.radius, "clip": found.clip, **counts, "images": [one(ball) for ball in found.balls]}


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


def plain(value: Any) -> Any:
    """The value with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def describe(network: Network, problem: Encoding | ReducedProgram | None = None, backend: Backend | None = None) -> dict[str, Any]:
    """A network as plain data: its nodes, its gates, and (if a program is given) its size, its unstable units, and how nodes are written.

    With a ``backend``, what that makes of it is told as well.
    """
    gates = problem.gates if problem else find_gates(network)
    unstable = problem.bounds.unstable() if isinstance(problem, Encoding) else {}
    data: dict[str, Any] = {
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "parameters": network.parameters,
        "nodes": [_node(node) | ({"unstable": unstable[node.name]} if node.name in unstable else {}) for node in network.nodes],
        "gates": [{"name": g.name, "units": g.units, "nodes": list(g.nodes), "sites": list(g.sites)} for g in gates],
        "notes": list(network.notes),
    }
    if isinstance(problem, Encoding):
        size = from_model(problem.model, problem.convex).size
        data["program"] = {"size": size, "samples": problem.region.samples, "bounds": problem.bounds.mode, "unstable": unstable}
        data["explanation"] = plain(asdict(explain(problem, backend)))
    elif problem is not None:
        data["program"] = {"size": problem.program.size, "samples": len(problem.frozen.images), "bounds": "paper", "unstable": {}}
    return data


def _node(node: Node) -> dict[str, Any]:
    parameters = sum(w.numel() for w in node.layer.weights().values())
    return {
        "name": node.name,
        "layer": node.layer.label,
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "parameters": parameters,
    }
