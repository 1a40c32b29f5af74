"""How far the nearest input is at which the network answers something else: certified from below, attained from above."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mipnet.arrays import Array
from mipnet.backend import Backend, Feature, Limits, Status
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import suggest_keywords
from mipnet.formulations.distance import Norm
from mipnet.model.encoding import Encoding, encode
from mipnet.model.to_program import from_model
from mipnet.network.graph import Network, size
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box
from mipnet.solving.engine import Start, open_problem
from mipnet.solving.extremes import OPTIMALITY, margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.by_solver import HELD, TANGENT
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import Search
from mipnet.verification.pipeline import verify
from mipnet.verification.robustness import Classes, ClipRange, answer, around, differences
from mipnet.verification.self_check import hold_program, telling_points

HALVINGS = 8
"""Of the range of radii in which linear bounds stop to be enough."""

FIRST = 0.3
"""Programs for the least distance may take so much of the time that is left, halving by whole verifications the rest."""

ORDER = {"linf": math.inf, "l1": 1.0, "l2": 2.0}

FURTHER = np.concatenate([[0.0], np.geomspace(1e-10, 1e-2, 33)])
"""A solver's point on the edge of two answers is moved away from the input by these shares of its distance until the answer changes."""


@dataclass(frozen=True, eq=False)
class Distortion:
    """The least distance at which the answer changes lies in ``[lower, upper]``.

    ``upper`` is attained: at ``point``, of the network's input shape, with the output ``output``; without such a point within the radius
    that was looked at it is infinite, and ``lower`` at most that radius.  ``gap`` is ``(upper - lower) / upper``.
    """

    lower: float
    upper: float
    point: Array | None
    output: Array | None
    norm: Norm
    label: int
    seconds: float
    nodes: int

    @property
    def gap(self) -> float:
        """Relative to ``upper``; 1 where nothing was found."""
        return (self.upper - self.lower) / self.upper if 0 < self.upper < math.inf else 1.0 if self.upper else 0.0


@suggest_keywords
@dataclass(frozen=True)
class DistortionSettings(MipSettings):
    """`MipSettings` for `mipnet.minimum_distortion`, with two more fields.

    Parameters
    ----------
    gap
        A class is finished once its lower bound is within ``gap`` of the distance of the nearest point found, relative to that distance.
    seed
        The seed of the gradient search.
    """

    gap: float = 1e-3
    seed: int = 0


@suggest_keywords
def minimum_distortion(
    network: Network,
    x: ArrayLike,
    label: int | Classes | None = None,
    *,
    upper: float,
    norm: Norm = "linf",
    clip: ClipRange = (0.0, 1.0),
    time_limit: float = 60.0,
    backend: str | Backend | MipSettings = "highs",
) -> Distortion:
    """The smallest distance from ``x`` at which some other class (or one of the targets) is at least as high as the label.

    Parameters
    ----------
    label
        The class that should win; the network's own answer at ``x`` if left out; with targets as ``Classes(label, targets)``.
    upper
        Only inputs within this distance are looked at.
    backend
        The solver, a `MipSettings`, or a `DistortionSettings` with the gap and the seed of the search as well.

    Gradient search and halving give the first point and the first lower bound.  Then each class that linear bounds leave open within the
    distance of the nearest point gets a program of its own, whose objective is the distance (for ``l2`` its square, by tangents: an outer
    approximation, so the lower bound holds).  What a solver's tolerances may hide is taken off.  Where that does not end in time, the range
    of radii is halved by `mipnet.verify`.  Other arguments as `mipnet.robustness`.
    """
    began = time.monotonic()
    settings = DistortionSettings.of(backend)
    image, classes = answer(network, x, label)
    count, own = size(network.output_shape), classes.label
    assert own is not None
    clauses = tuple(Clause(differences(count, c, [own]), np.zeros(1)) for c in classes.others(count))
    look = _Look(Excess.of(network, clauses), image, norm, clip, upper, began + time_limit, settings)
    look.see(image)
    if look.best > 0:
        look.attack()
        look.halve()
        look.solve(time.monotonic() + FIRST * (look.end - time.monotonic()))
        look.narrow(network, clauses)
    found = look.point
    output = None if found is None else network.forward(found)[0]
    return Distortion(
        min(look.lower, look.best),
        look.best,
        None if found is None else found[0],
        output,
        norm,
        own,
        time.monotonic() - began,
        look.nodes,
    )


@dataclass(eq=False)
class _Look:
    """What is known so far: no input nearer than ``lower`` changes the answer, ``point`` does at the distance ``best``."""

    excess: Excess
    image: Array
    norm: Norm
    clip: ClipRange
    upper: float
    end: float
    settings: DistortionSettings
    lower: float = 0.0
    best: float = math.inf
    point: Array | None = None
    nodes: int = 0

    def region(self, radius: float) -> Box:
        """The ball of a radius."""
        return around(self.image, radius, self.norm, self.clip)

    @property
    def radius(self) -> float:
        """Nothing further away is of interest."""
        return min(self.best, self.upper)

    def distance(self, x: Array) -> Array:
        """Of each input from the image."""
        return np.asarray(np.linalg.norm((x - self.image).reshape(len(x), -1), ORDER[self.norm], axis=1))

    def see(self, x: Array) -> bool:
        """Take the nearest of some inputs that change the answer, if it is the nearest so far."""
        with torch.no_grad():
            changes = self.excess(torch.tensor(x)).amin(1).numpy() <= 0
        away = np.where(changes, self.distance(x), np.inf)
        k = int(away.argmin())
        if not away[k] < self.best or away[k] > self.upper:
            return False
        self.best, self.point = float(away[k]), x[k : k + 1]
        return True

    def attack(self) -> None:
        """Gradient search in smaller and smaller balls, and along the way from the image to what it finds."""
        clauses, stop = torch.arange(self.excess.clauses), time.monotonic() + 0.2 * (self.end - time.monotonic())
        radius = self.radius
        for k in range(3 * HALVINGS):
            x, worst = Search.of(self.excess, self.region(radius), self.settings.seed + k).descend(clauses, stop)
            near = x[worst.argsort()[:8]].numpy()
            steps = [self.image + t * (near - self.image) for t in np.linspace(0.0, 1.0, 65)[1:]]
            if not self.see(np.concatenate(steps)) and k:
                return
            radius = 0.95 * self.radius
            if time.monotonic() >= stop:
                return

    def halve(self) -> None:
        """The largest radius, up to halving, within which linear bounds refute every class."""
        low, high = 0.0, self.radius
        for _ in range(HALVINGS):
            if time.monotonic() >= self.end or high <= 0:
                return
            middle = (low + high) / 2
            low, high = (middle, high) if self.open(self.bounds(middle)).size == 0 else (low, middle)
            self.lower = max(self.lower, low)

    def bounds(self, radius: float) -> Bounds:
        """Linear bounds over the ball of a radius."""
        return propagate(self.excess.network, self.region(radius), method="crown")

    def open(self, bounds: Bounds) -> NDArray[np.int64]:
        """The classes that bounds do not refute."""
        return np.flatnonzero(bounds.after[self.excess.network.output.name].lower[0].numpy() <= 0)

    def solve(self, end: float) -> None:
        """One program a class, over the ball of the nearest point; what is proven of all of them is proven."""
        radius, gap, solver = self.radius, self.settings.gap, self.settings.solver
        bounds = self.bounds(radius)
        left = self.open(bounds)
        if not len(left) or time.monotonic() >= self.end:
            self.lower = max(self.lower, radius if not len(left) else 0.0)
            return
        encoding = encode(self.excess.network, bounds.region, bounds=bounds, formulation=self.settings.formulation)
        t = encoding.model.variables["distance"] if bounds.region.ball else encoding.distance(self.image, radius, self.norm)
        x = telling_points(self.excess, bounds, self.settings.seed)
        hold_program(encoding, from_model(encoding.model), x[np.linspace(0, len(x) - 1, min(HELD, len(x))).astype(int)])
        encoding.model.add_objective(1 * t.sum())
        least, cuts = np.full(len(left), 0.0), 0
        lower, upper = (np.asarray(end.values) for end in (encoding.output.lower, encoding.output.upper))
        with open_problem(encoding, solver, options=self.settings.options) as opened:
            for position, k in enumerate(left):
                seconds = (end - time.monotonic()) / (len(left) - position)
                if seconds <= 0:
                    break
                most = upper.copy()
                most[..., k] = np.minimum(most[..., k], 0.0)
                opened.set_bounds(encoding.output, np.minimum(lower, most), most)
                off = margin(opened.problem.program, opened.problem.program.cost, 0.0)
                stop = self.power((1 - gap) * self.radius / radius) + off if Feature.BOUND_STOP in solver.features else None
                start: Start = "none" if self.point is None else encoding.point(self.point)
                result = opened.solve(limits=Limits(time=seconds, gap=gap / 4, bound_stop=stop), start=start)
                self.nodes, cuts = self.nodes + result.nodes, cuts + result.cuts
                off += OPTIMALITY * TANGENT * cuts
                least[position] = radius if result.status is Status.INFEASIBLE else self.root(result.bound - off) * radius
                if result.point is not None:
                    self.further(encoding, result.point)
                if result.status is Status.INTERRUPTED:
                    break
        self.lower = max(self.lower, min(float(least.min()), radius))

    def narrow(self, network: Network, clauses: tuple[Clause, ...]) -> None:
        """Halving again, for what programs left open, by all stages of `mipnet.verify` with an equal share of the time for each radius."""
        low, high, share = self.lower, self.radius, (self.end - time.monotonic()) / HALVINGS
        for k in range(HALVINGS):
            if share <= 0 or high - low <= self.settings.gap * high or (self.best == math.inf and self.lower >= self.upper):
                return
            middle = (low + high) / 2
            case = Case(self.region(middle).reshape((1, self.image.size)), clauses)
            verdict = verify(network, Property((case,)), time_limit=share, backend=self.settings.solver, seed=self.settings.seed + k)
            self.nodes += verdict.nodes
            if verdict.counterexample is not None:
                self.see(verdict.counterexample[None])
            low, high = (middle, high) if verdict.status == "unsat" else (low, middle)
            self.lower = max(self.lower, low)
            if verdict.interrupted:
                return

    def power(self, share: float) -> float:
        """The objective at a distance, in units of the radius."""
        return share**2 if self.norm == "l2" else share

    def root(self, value: float) -> float:
        """The distance at an objective."""
        value = max(0.0, value)
        return math.sqrt(value) if self.norm == "l2" else value

    def further(self, encoding: Encoding, point: Array) -> None:
        """The solver's point, or one a little further on the same way, if it changes the answer."""
        x = encoding.value("input", point)
        steps = (1 + FURTHER).reshape(-1, *[1] * (x.ndim - 1))
        low, high = self.clip or (-np.inf, np.inf)
        self.see(np.clip(self.image + steps * (x - self.image), low, high))
