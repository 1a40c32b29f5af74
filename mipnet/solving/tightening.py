"""Bounds by optimisation: the extremes of a unit over the relaxation of all layers before it (LP), or over these layers themselves (MIP).

Layer by layer the network up to a layer is written as a program with the bounds that are known so far, handed to a solver once, and
minimised and maximised for one unit after another on the open session (Tjeng, Xiao and Tedrake, "Evaluating Robustness of Neural
Networks with Mixed Integer Programming", ICLR 2019, section 4).  It is progressive: linear backward bounds first, then LP, then MIP,
and only for units whose sign is not known yet; a solve ends as soon as its bound settles the sign.  How one program is solved, and what
is made of a solver's tolerances, is in `mipnet.solving.extremes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import Known, ancestors, crown
from mipnet.bounds.interval import Interval
from mipnet.bounds.propagation import Question, matters, propagate, sweep
from mipnet.bounds.user_bounds import hold_against_samples
from mipnet.errors import InputError, SolverFailure, suggest_keywords
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT, Network, Node
from mipnet.network.sets import Box
from mipnet.solving.extremes import Job, solve_job
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.parallel import run_all


@suggest_keywords
@dataclass(frozen=True)
class TighteningRun:
    """How `tighten` runs the programs of a layer, and whom it tells.

    Parameters
    ----------
    workers
        Number of processes that share the units of a layer; 0 solves one program after another in this process.
    scheduler
        The address of a running dask scheduler in place of processes of its own; see `mipnet.solving.parallel`.
    on_layer
        Called with one line per layer when the layer begins.
    """

    workers: int = 0
    scheduler: str | None = None
    on_layer: Callable[[str], None] | None = None

    @property
    def here(self) -> bool:
        """True if the programs run in this process."""
        return self.scheduler is None and self.workers == 0


@suggest_keywords
def tighten(
    network: Network,
    region: Box,
    gates: Sequence[Gate] = (),
    *,
    method: Literal["lp", "mip"] = "mip",
    start: Bounds | None = None,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 60.0,
    run: TighteningRun | None = None,
) -> Bounds:
    """Bounds of every node over ``region`` and for every value of the ``gates``, tightened by a solver; hand them to `mipnet.encode`.

    Parameters
    ----------
    method
        ``lp``: over the relaxation of the layers before; ``mip``: and then over these layers themselves.
    start
        Bounds that are known, such as those of a call before; alpha-CROWN's if left out.
    backend
        The solver, or a `MipSettings` with its options and the formulation as well; the LP is the relaxation of that formulation.
    time_limit
        Seconds for the whole call.  Units that come too late keep the bounds that they have.
    run
        The processes that share the programs, and a function that is called once per layer; everything in this process if left out.

    Ctrl-C ends it early, with what is proven so far.  Raises `SolverFailure` if a forward pass contradicts what the solver proved.
    """
    if method not in ("lp", "mip"):
        raise InputError(f"the method is `{method}`; expected `lp` or `mip` (`mipnet.propagate` knows the others)")
    if not time_limit > 0:
        raise InputError(f"the time limit is {time_limit}; expected a number of seconds above 0")
    began, region = time.monotonic(), region.fit(network.input_shape)
    if start is None:
        start = propagate(network, region, gates, method="alpha")
    start.check(network, region, gates)
    settings = MipSettings.of(backend)
    question = Question(network, region, tuple(gates), start=start)
    sharing = _Sharing(question, settings, method == "lp", run or TighteningRun(), began + time_limit, _layers(question))
    bounds = sweep(question, [crown, sharing.refine], method)
    try:
        hold_against_samples(network, region, gates, {node.name: bounds.before_gate(node.name) for node in network.nodes})
    except InputError as error:
        raise SolverFailure(f"{settings.solver.name} contradicts a forward pass: {error}") from None
    return bounds


def _layers(question: Question) -> int:
    """How many nodes have elements that tighter bounds would serve."""
    found: list[str] = []

    def note(known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
        found.append(node.name)
        return box

    sweep(question, [note], "")
    return len(found)


@dataclass(eq=False)
class _Sharing:
    """Time shared out over the layers that are left, and each layer's elements over programs: one a sample, or more with workers."""

    question: Question
    settings: MipSettings
    relaxed: bool
    run: TighteningRun
    end: float
    layers: int

    def refine(self, known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
        """The node's box, where ``wanted`` improved by a solver: a refinement for `mipnet.bounds.propagation.sweep`."""
        seconds, self.layers = max(0.0, self.end - time.monotonic()) / max(1, self.layers), self.layers - 1
        if not seconds:
            return box
        if self.run.on_layer is not None:
            self.run.on_layer(f"{node.name}: {int(wanted.sum()):,} units, at most {seconds:.1f} s")
        jobs = self.jobs(known, node, box, wanted, seconds)
        programs = {key: partial(solve_job, job) for key, job in jobs.items()}
        found = run_all(programs, workers=self.run.workers, scheduler=self.run.scheduler)
        lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
        for (sample, _), ends in found.items():
            lower[sample, ends.elements], upper[sample, ends.elements] = torch.tensor(ends.lower), torch.tensor(ends.upper)
            self.end = 0.0 if ends.interrupted else self.end
        return box & Interval(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))

    def jobs(self, known: Known, node: Node, box: Interval, wanted: Tensor, seconds: float) -> dict[tuple[int, int], Job]:
        """The elements in question by sample and part."""
        part, gates = self.part(node)
        at_least, at_most = (
            Interval(box.lower.clamp(min=0), box.upper.clamp(min=0)),
            Interval(box.lower.clamp(max=0), box.upper.clamp(max=0)),
        )
        settled = [~matters(known, node.name, end).flatten(1).numpy() for end in (at_least, at_most)]
        asked, lower, upper = (end.flatten(1).numpy() for end in (wanted, box.lower, box.upper))
        samples = np.flatnonzero(asked.any(axis=1)).tolist()
        parts = 4 if self.run.scheduler is not None else max(1, -(-self.run.workers // len(samples)))
        jobs = {}
        for k in samples:
            bounds = self.bounds(part, gates, known, node, box, k)
            elements = np.flatnonzero(asked[k])
            for p in range(min(parts, len(elements))):
                own = elements[p::parts]
                jobs[k, p] = Job(
                    bounds, self.settings, self.relaxed, own, lower[k, own], upper[k, own], settled[0][k, own], settled[1][k, own]
                )
        side_by_side = len(jobs) if self.run.scheduler is not None else min(max(1, self.run.workers), len(jobs))
        return {key: replace(job, seconds=seconds * side_by_side / len(jobs)) for key, job in jobs.items()}

    def part(self, node: Node) -> tuple[Network, tuple[Gate, ...]]:
        """The network up to a node, and the gates before it."""
        part = Network(self.question.network.input_shape, tuple(ancestors(self.question.network, node.name)))
        names = {each.name for each in part.nodes[:-1]}
        inside = ((gate, tuple(site for site in gate.sites if site in names)) for gate in self.question.gates)
        return part, tuple(replace(gate, sites=sites) for gate, sites in inside if sites)

    def bounds(self, part: Network, gates: tuple[Gate, ...], known: Known, node: Node, box: Interval, k: int) -> Bounds:
        """What is known of one sample up to a node."""
        region, names = self.question.region, {INPUT, *(each.name for each in part.nodes[:-1])}
        after = {name: value[k : k + 1] for name, value in known.after.items() if name in names}
        ungated = {name: value[k : k + 1] for name, value in known.ungated.items() if name in names}
        one = region.only(k)
        return Bounds(part, one, {**after, node.name: box[k : k + 1]}, ungated, gates)
