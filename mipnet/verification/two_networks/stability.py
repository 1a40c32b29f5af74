"""Which ReLUs never change over a box: bounds first, inputs that show both states, and one program for all units that are left.

Serra, Yu, Kumar and Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability" (NeurIPS 2021), section 4: the program
maximises how many units reach a state that no input has shown yet, and is solved again without those that did, until none can.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Limits, Status
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.user_bounds import BoundsByNode
from mipnet.formulations.affine import Affine, concatenate
from mipnet.formulations.linopy_rows import add_rows, add_variables
from mipnet.layers import Concat, ReLU, Reshape
from mipnet.model.encoding import encode
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.solving.engine import OpenProblem, open_problem
from mipnet.solving.extremes import margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import Search

Mask = NDArray[np.bool_]

SAMPLES, ROUNDS = 4096, 2
"""So many inputs are drawn first, and so many rounds of gradient search go to every state that none of them shows."""

TOUCH = 1e-5
"""A state counts as reached in the program already this far from zero, relative to the unit's bounds: tolerances cannot hide it then."""

WIDE = 0.5
"""A round ends with the gap of a point that reaches half of what is possible at least, or with the proof that nothing is."""

TOGETHER = 64
"""So many states are searched at once."""


@dataclass(eq=False)
class States:
    """The inputs of all ReLUs in order, flat: ``never_on`` and ``never_off`` are proven, ``seen_on`` and ``seen_off`` shown by an input.

    ``where`` is each ReLU's name and its place among them.
    """

    network: Network
    bounds: Bounds
    where: Mapping[str, slice]
    lower: Array
    upper: Array
    seen_on: Mask = field(init=False)
    seen_off: Mask = field(init=False)
    kept: Mask = field(init=False)
    rounds: int = 0
    nodes: int = 0
    complete: bool = True

    def __post_init__(self) -> None:
        self.seen_on, self.seen_off, self.kept = (np.zeros(len(self.lower), dtype=bool) for _ in range(3))

    @staticmethod
    def of(network: Network, bounds: Bounds) -> States:
        """What bounds say."""
        where, ends, start = {}, [], 0
        for node in network.nodes:
            if isinstance(node.layer, ReLU):
                where[node.name] = slice(start, start := start + size(node.shape))
                ends.append(bounds.after[node.inputs[0]])
        lower, upper = (np.concatenate([getattr(end, key)[0].numpy().reshape(-1) for end in ends]) for key in ("lower", "upper"))
        return States(network, bounds, where, lower, upper)

    @property
    def never_on(self) -> Mask:
        """Units that are silent all over the box."""
        return self.upper <= 0

    @property
    def never_off(self) -> Mask:
        """Units that act all over the box."""
        return (self.lower >= 0) & ~self.never_on

    @property
    def open(self) -> Mask:
        """Units of which one state at most has been seen, with nothing proven: shape ``(2, units)``, those that may be on, or off."""
        free = ~self.never_on & ~self.never_off & ~self.kept
        return np.stack([free & ~self.seen_on, free & ~self.seen_off])

    def ends(self, name: str) -> tuple[Array, Array]:
        """The bounds of what a ReLU reads."""
        return self.lower[self.where[name]], self.upper[self.where[name]]

    def known(self) -> BoundsByNode:
        """The bounds of all nodes that ReLUs read."""
        nodes = {name: self.network[self.network[name].inputs[0]] for name in self.where}
        return {node.name: tuple(end.reshape(node.shape) for end in self.ends(name)) for name, node in nodes.items()}

    @cached_property
    def reader(self) -> Network:
        """The network that returns the inputs of all ReLUs, flat."""
        layers = [(node.name, node.layer, node.inputs) for node in self.network.nodes]
        flat = [f"{name}_read" for name in self.where]
        layers += [
            (one, Reshape((size(self.network[name].shape),)), self.network[name].inputs) for one, name in zip(flat, self.where, strict=True)
        ]
        return Network.build(self.network.input_shape, [*layers, ("read", Concat(), flat)])

    def learn(self, x: Array) -> None:
        """Take down the states at inputs ``(n, *input_shape)``."""
        z = self.reader.forward(self.bounds.region.nearest(x))
        self.seen_on |= (z > 0).any(axis=0)
        self.seen_off |= (z < 0).any(axis=0)

    def witness(self, end: float, seed: int) -> None:
        """Samples, then gradient search for every state that no sample shows."""
        region, rng = self.bounds.region, np.random.default_rng(seed)
        share = rng.uniform(-0.5, 1.5, (SAMPLES, *region.lower.shape[1:])).clip(0, 1)
        self.learn(region.lower + share * (region.upper - region.lower))
        for _ in range(ROUNDS):
            signs, units = np.nonzero(self.open)
            for first in range(0, len(units), TOGETHER):
                part = slice(first, first + TOGETHER)
                if time.monotonic() >= end:
                    return
                rows = np.zeros((len(units[part]), len(self.lower)))
                rows[np.arange(len(rows)), units[part]] = np.where(signs[part] == 0, -1.0, 1.0)
                excess = Excess.of(self.reader, [Clause(row[None], np.zeros(1)) for row in rows])
                search = Search.of(excess, region, seed + first)
                self.learn(search.descend(torch.arange(len(rows)), end)[0].numpy())


def settle(states: States, settings: MipSettings, end: float) -> None:
    """Rounds of the program until no unseen state can be reached, or until time is over: then ``complete`` is False."""
    if not states.open.any():
        return
    asking = _Asking(states, settings)
    with open_problem(asking.encoding, settings.solver, options=settings.options) as problem:
        while states.open.any():
            seconds = end - time.monotonic()
            if seconds <= 0 or not asking.once(problem, seconds):
                states.complete = False
                return


class _Asking:
    """The network with a binary for each unseen state: 1 only where the state is reached, or all but."""

    def __init__(self, states: States, settings: MipSettings) -> None:
        self.states = states
        known = states.bounds
        self.encoding = encode(states.network, known.region, bounds=known, formulation=settings.formulation)
        self.sign, self.unit = np.nonzero(states.open)
        model, turn = self.encoding.model, np.where(self.sign == 0, 1.0, -1.0)
        self.reached = add_variables(model, "reached", 0, 1, {"state": np.arange(len(self.unit))}, binary=True)
        read = [self.encoding.values[states.network[name].inputs[0]].reshape(-1) for name in states.where]
        value = concatenate(read, 0)[self.unit] * turn
        least = np.where(self.sign == 0, states.lower[self.unit], -states.upper[self.unit])
        touch = -TOUCH * np.maximum(1.0, np.maximum(np.abs(states.lower), np.abs(states.upper))[self.unit])
        labels = np.asarray(self.reached.labels.values)
        rows = value - Affine.of(labels) * (touch - least)
        add_rows(model, "reached_if", rows, ">=", least, ("state",), self.encoding.samples)
        model.add_objective(self.reached.sum(), sense="max")
        self.encoding.fills.append((labels, lambda point: (value.evaluate(point) >= touch).astype(np.float64)))

    def once(self, problem: OpenProblem, seconds: float) -> bool:
        """One round: True if it showed a state, or proved that there is none; False if time ran out."""
        states = self.states
        left = states.open[self.sign, self.unit]
        problem.set_bounds(self.reached, upper=left.astype(np.float64))
        program = problem.problem.program
        off = margin(program, program.cost, program.offset)
        found = problem.solve(limits=Limits(time=seconds, gap=WIDE))
        states.rounds, states.nodes = states.rounds + 1, states.nodes + found.nodes
        if found.bound + off < 1:
            on, to = self.unit[left & (self.sign == 0)], self.unit[left & (self.sign == 1)]
            states.upper[on] = np.minimum(states.upper[on], 0.0)
            states.lower[to] = np.maximum(states.lower[to], 0.0)
            return True
        if found.point is None or found.status is Status.INTERRUPTED:
            return False
        reached = found.point[self.reached.labels.values] > 0.5
        states.learn(self.encoding.value("input", found.point))
        again = reached & states.open[self.sign, self.unit]
        states.kept[self.unit[again]] = True  # all but reached: nothing can be proven of it within tolerances
        return bool(reached.any())
