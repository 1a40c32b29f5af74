"""Bounds by optimisation: each unit is minimised and maximised over the layers before it (MIP) or over their relaxation (LP).

Layer by layer, the network up to that layer is written as a program with the bounds computed so far.  The program is passed to a solver
once, and one unit after another is minimised and maximised on the open session (Tjeng, Xiao and Tedrake, "Evaluating Robustness of Neural
Networks with Mixed Integer Programming", ICLR 2019, section 4).  The methods are applied in order of cost: linear backward bounds, LP, MIP,
and only to units whose sign is not known yet.  A solve ends as soon as its bound settles the sign.  `mipnet.solving.element_bounds`
solves one program and accounts for the solver's tolerances.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import crown
from mipnet.bounds.crown_rows import KnownBounds, ancestors
from mipnet.bounds.interval import Interval
from mipnet.bounds.propagation import BoundsQuestion, elements_to_tighten, propagate_until_ctrl_c, sweep
from mipnet.bounds.user_bounds import check_by_samples
from mipnet.errors import InputError, SolverFailure, TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node
from mipnet.network.sets import Box
from mipnet.solving.element_bounds import ElementBounds, ElementJob, solve_job
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.solving.parallel import Workers, run_all

PARTS_PER_SAMPLE_ON_SCHEDULER = 4
"""Number of programs into which the units of a sample are divided when a dask scheduler runs them."""

START_BOUNDS_TIME_SHARE = 1 / 3
"""Largest share of the time limit of `tighten` for the bounds that it starts from."""

CHECK_SECONDS_MIN = 0.5
"""Seconds, also after the deadline, in which forward passes check the bounds."""


@suggest_keywords
@dataclass(frozen=True)
class TighteningRun:
    """How `tighten` runs the programs of a layer, and how it reports progress.

    Parameters
    ----------
    workers
        Number of processes that share the units of a layer, one per core if None; 0 solves one program after another in this process.
        A `mipnet.solving.parallel.Workers` with the address of a dask scheduler runs the programs there.
    on_layer
        Called with one line per layer when the layer begins.
    """

    workers: int | Workers | None = 0
    on_layer: Callable[[str], None] | None = None


MOVED_TO_TIGHTENING_RUN = {
    "workers": "write `run=mn.TighteningRun(workers=...)`",
    "scheduler": "write `run=mn.TighteningRun(workers=Workers(scheduler=...))`, with `mipnet.solving.parallel.Workers`",
    "tell": "write `run=mn.TighteningRun(on_layer=...)`",
}
"""What to write instead of arguments that are now fields of `TighteningRun`; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS | MOVED_TO_TIGHTENING_RUN)
def tighten(
    network: Network,
    region: Box,
    gates: Sequence[Gate] = (),
    *,
    method: Literal["lp", "mip"] = "mip",
    start: Bounds | None = None,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 60.0,
    run: TighteningRun | None = None,
) -> Bounds:
    """Return bounds of every node over ``region`` and for every score of the ``gates``, tightened by a solver.

    Pass them to `mipnet.encode` as ``bounds``.

    Parameters
    ----------
    method
        ``lp``: over the relaxation of the earlier layers; ``mip``: over the relaxation, and then over the layers themselves.
    start
        Bounds that hold, for example from an earlier call; the bounds of alpha-CROWN if left out.
    backend
        The solver, or a `MipSettings` with its options and the formulation as well; the LP is the relaxation of that formulation.
    time_limit
        Seconds of the whole call, None for no limit.  Units that are not reached in time keep their bounds, and `Bounds.stopped` is True.
    run
        The processes that share the programs, and a function that is called once per layer; everything in this process if left out.

    Ctrl-C ends the call early and returns the bounds proven so far, with `Bounds.interrupted` True.  Raises `SolverFailure` if a forward
    pass contradicts a bound that the solver proved, and `TimeLimitReached` if the time ends before there are interval bounds of every
    node.
    """
    if method not in ("lp", "mip"):
        raise InputError(f"the method is `{method}`; expected `lp` or `mip` (`mipnet.propagate` knows the others)")
    deadline, region = Deadline.after(time_limit), region.fit(network.input_shape, network.input_names)
    if start is None:
        start = propagate_until_ctrl_c(network, region, gates, "interval", deadline)
        start = propagate_until_ctrl_c(network, region, gates, "alpha", deadline.share(START_BOUNDS_TIME_SHARE), start)
        if start.interrupted:
            return start
    start.check(network, region, gates)
    settings = MipSettings.of(backend)
    question = BoundsQuestion(network, region, tuple(gates), start=start, deadline=deadline, keeps=True)
    run = run or TighteningRun()
    refinement = _Refinement(question, settings, method == "lp", Workers.of(run.workers), run.on_layer, deadline, _layers(question))
    bounds = sweep(question, [crown, refinement.refine], method)
    boxes = {node.name: bounds.before_gate(node.name) for node in network.nodes}
    try:
        check_by_samples(network, region, gates, boxes, deadline.at_least(CHECK_SECONDS_MIN))
    except TimeLimitReached:
        pass
    except KeyboardInterrupt:
        return replace(bounds, interrupted=True)
    except InputError as error:
        raise SolverFailure(f"{settings.solver.name} contradicts a forward pass: {error}") from None
    return bounds


def _layers(question: BoundsQuestion) -> int:
    """Return the number of nodes with elements whose tighter bounds are of use."""
    found: list[str] = []

    def note(known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
        found.append(node.name)
        return box

    sweep(question, [note], "")
    return len(found)


@dataclass(eq=False)
class _Refinement:
    """Refines the bounds of one layer after another: the remaining time is divided among the remaining layers.

    The elements of a layer are divided among programs: one program per sample, or several per sample with workers.
    """

    question: BoundsQuestion
    settings: MipSettings
    relaxed: bool
    workers: Workers
    on_layer: Callable[[str], None] | None
    deadline: Deadline
    layers: int

    def refine(self, known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
        """Return the node's box with the elements in ``wanted`` tightened by a solver: a `mipnet.bounds.propagation.Refinement`."""
        share, self.layers = self.deadline.share(1 / max(1, self.layers)), self.layers - 1
        if self.deadline.passed:
            known.stopped = True
            return box
        if self.on_layer is not None:
            at_most = "" if share == NO_DEADLINE else f", at most {share.seconds:.1f} s"
            self.on_layer(f"{node.name}: {int(wanted.sum()):,} units{at_most}")
        programs = {key: partial(solve_job, job) for key, job in self.jobs(known, node, box, wanted).items()}
        lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()

        def take(key: tuple[int, int], ends: ElementBounds) -> None:
            lower[key[0], ends.elements], upper[key[0], ends.elements] = torch.tensor(ends.lower), torch.tensor(ends.upper)
            known.stopped |= ends.stopped
            if ends.left_out:
                known.simpler.append(f"`{node.name}` keeps looser bounds: {ends.left_out}")
            if ends.interrupted:
                raise KeyboardInterrupt

        try:
            run_all(programs, workers=self.workers, on_done=take, deadline=share)
        except KeyboardInterrupt:  # the programs that had ended are taken
            known.interrupted = True
        return box & Interval(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))

    def jobs(self, known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> dict[tuple[int, int], ElementJob]:
        """Return the jobs that bound the wanted elements, by sample and part."""
        part, gates = self.part(node)
        at_least, at_most = (
            Interval(box.lower.clamp(min=0), box.upper.clamp(min=0)),
            Interval(box.lower.clamp(max=0), box.upper.clamp(max=0)),
        )
        settled = [~elements_to_tighten(known, node.name, end).flatten(1).numpy() for end in (at_least, at_most)]
        asked, lower, upper = (end.flatten(1).numpy() for end in (wanted, box.lower, box.upper))
        samples = np.flatnonzero(asked.any(axis=1)).tolist()
        processes = max(1, os.cpu_count() or 1 if self.workers.count is None else self.workers.count)
        parts = PARTS_PER_SAMPLE_ON_SCHEDULER if self.workers.scheduler is not None else -(-processes // len(samples))
        jobs = {}
        for k in samples:
            bounds = self.bounds(part, gates, known, node, box, k)
            elements = np.flatnonzero(asked[k])
            for p in range(min(parts, len(elements))):
                own = elements[p::parts]
                jobs[k, p] = ElementJob(
                    bounds, self.settings, self.relaxed, own, lower[k, own], upper[k, own], settled[0][k, own], settled[1][k, own]
                )
        return jobs

    def part(self, node: Node) -> tuple[Network, tuple[Gate, ...]]:
        """Return the network up to a node, and the gates before it."""
        part = Network(self.question.network.input_shape, tuple(ancestors(self.question.network, node.name)))
        names = {each.name for each in part.nodes[:-1]}
        inside = ((gate, tuple(site for site in gate.sites if site in names)) for gate in self.question.gates)
        return part, tuple(replace(gate, sites=sites) for gate, sites in inside if sites)

    def bounds(self, part: Network, gates: tuple[Gate, ...], known: KnownBounds, node: Node, box: Interval, k: int) -> Bounds:
        """Return the known bounds of one sample up to a node."""
        region, names = self.question.region, {INPUT_NODE, *(each.name for each in part.nodes[:-1])}
        after = {name: value[k : k + 1] for name, value in known.after.items() if name in names}
        ungated = {name: value[k : k + 1] for name, value in known.ungated.items() if name in names}
        one = region.only(k)
        return Bounds(part, one, {**after, node.name: box[k : k + 1]}, ungated, gates)
