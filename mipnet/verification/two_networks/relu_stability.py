"""The ReLUs that never change state over a box, found by bounds, by inputs that show both states, and by one program for the other units.

Serra, Yu, Kumar and Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability" (NeurIPS 2021), section 4: the program
maximises the number of units that reach a state no input has shown yet.  It is solved again without these units, until none is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array, Mask
from mipnet.backend import Limits
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.user_bounds import BoundsByNode
from mipnet.errors import TimeLimitReached
from mipnet.formulations.affine import Affine, concatenate
from mipnet.formulations.linopy_rows import add_rows, add_variables
from mipnet.layers import Concat, ReLU, Reshape
from mipnet.limits.array_dataset import array_dataset, dataset_arrays
from mipnet.limits.deadline import Deadline
from mipnet.limits.kept_parts import NOTHING_KEPT, KeptParts
from mipnet.limits.result_warnings import add_warning, kept_if_solver_fails, left_out_if_too_large
from mipnet.model.encode import encode
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.properties import Clause
from mipnet.solving.element_bounds import tolerance_margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.open_problem import OpenProblem, open_problem
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import CounterexampleSearch

STATE_SAMPLES = 4096
"""Number of random inputs whose states are recorded first."""

STATE_SEARCH_ROUNDS = 2
"""Rounds of gradient search for every state that no random input shows."""

STATE_TOLERANCE_RELATIVE = 1e-5
"""A state counts as reached in the program up to this distance from it, relative to the unit's bounds, because of solver tolerances."""

STATE_PROGRAM_GAP = 0.5
"""The relative gap at which a solve ends: with at least half of the units that can be reached, or with a proof that there are none."""

STATES_PART, STATE_ARRAYS = "states", ("lower", "upper", "seen_on", "seen_off", "kept")
"""The label of the part that is kept, and the attributes of its arrays."""

STATES_PER_SEARCH = 64
"""Number of states that are searched at once."""


@dataclass(eq=False)
class ReluStates:
    """The states of all ReLU units of a network, flat and in order.

    ``never_on`` and ``never_off`` are proven, ``seen_on`` and ``seen_off`` were shown by an input, and ``kept`` units cannot be decided
    within the solver's tolerances.  ``where`` holds the positions of each ReLU's units, by its name.  ``parts`` keeps the states on disk.
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
    searched: bool = False
    parts: KeptParts = NOTHING_KEPT

    def __post_init__(self) -> None:
        self.seen_on, self.seen_off, self.kept = (np.zeros(len(self.lower), dtype=bool) for _ in range(3))

    @staticmethod
    def of(network: Network, bounds: Bounds) -> ReluStates:
        """Return the states that bounds prove."""
        where, ends, start = {}, [], 0
        for node in network.nodes:
            if isinstance(node.layer, ReLU):
                where[node.name] = slice(start, start := start + size(node.shape))
                ends.append(bounds.after[node.inputs[0]])
        lower, upper = (np.concatenate([getattr(end, key)[0].numpy().reshape(-1) for end in ends]) for key in ("lower", "upper"))
        return ReluStates(network, bounds, where, lower, upper)

    def keep(self) -> None:
        """Keep what is known so far on disk."""
        record = {"rounds": self.rounds, "nodes": self.nodes, "searched": self.searched}
        self.parts.keep(STATES_PART, record, array_dataset({name: getattr(self, name) for name in STATE_ARRAYS}))

    def go_on(self) -> bool:
        """Take up the states that an earlier call has kept; return whether there are any."""
        found = self.parts.read(STATES_PART, self._checked)
        if found is None:
            return False
        found["lower"], found["upper"] = np.maximum(self.lower, found["lower"]), np.minimum(self.upper, found["upper"])
        for name, value in found.items():
            setattr(self, name, value)
        return True

    def _checked(self, record: Mapping[str, Any], arrays: xr.Dataset | None) -> dict[str, Any]:
        """Return the attributes that were kept; raises ValueError if they are not those of these units."""
        known = dataset_arrays(arrays)
        if sorted(known) != sorted(STATE_ARRAYS) or any(each.shape != self.lower.shape for each in known.values()):
            raise ValueError("it is not about these units")
        return {name: record[name] for name in ("rounds", "nodes", "searched")} | known

    @property
    def never_on(self) -> Mask:
        """The units that are inactive for every input of the box."""
        return self.upper <= 0

    @property
    def never_off(self) -> Mask:
        """The units that are active for every input of the box."""
        return (self.lower >= 0) & ~self.never_on

    @property
    def open(self) -> Mask:
        """The states that were neither shown nor excluded, ``(2, units)``: first units that may be on, then units that may be off."""
        free = ~self.never_on & ~self.never_off & ~self.kept
        return np.stack([free & ~self.seen_on, free & ~self.seen_off])

    def bounds_of(self, name: str) -> tuple[Array, Array]:
        """Return the bounds of a ReLU's input."""
        return self.lower[self.where[name]], self.upper[self.where[name]]

    def given(self) -> BoundsByNode:
        """Return the bounds of all nodes that ReLUs read, for `mipnet.propagate`."""
        nodes = {name: self.network[self.network[name].inputs[0]] for name in self.where}
        return {node.name: tuple(end.reshape(node.shape) for end in self.bounds_of(name)) for name, node in nodes.items()}

    @cached_property
    def reader(self) -> Network:
        """A network that returns the inputs of all ReLUs, flat."""
        layers = [(node.name, node.layer, node.inputs) for node in self.network.nodes]
        flat = [f"{name}_read" for name in self.where]
        layers += [
            (one, Reshape((size(self.network[name].shape),)), self.network[name].inputs) for one, name in zip(flat, self.where, strict=True)
        ]
        return Network.build(self.network.input_shape, [*layers, ("read", Concat(), flat)])

    def learn(self, x: Array) -> None:
        """Record the states at inputs ``(n, *input_shape)``."""
        z = self.reader.forward(self.bounds.region.nearest(x))
        self.seen_on |= (z > 0).any(axis=0)
        self.seen_off |= (z < 0).any(axis=0)

    def search(self, deadline: Deadline, seed: int) -> None:
        """Record the states of random inputs, then run gradient search for every state that none of them shows."""
        region, rng = self.bounds.region, np.random.default_rng(seed)
        at_once = samples_at_once(self.reader)
        for first in range(0, STATE_SAMPLES, at_once):
            if deadline.passed:
                return
            share = rng.uniform(-0.5, 1.5, (min(at_once, STATE_SAMPLES - first), *region.lower.shape[1:])).clip(0, 1)
            self.learn(region.lower + share * (region.upper - region.lower))
        for _ in range(STATE_SEARCH_ROUNDS):
            signs, units = np.nonzero(self.open)
            for first in range(0, len(units), STATES_PER_SEARCH):
                part = slice(first, first + STATES_PER_SEARCH)
                if deadline.passed:
                    return
                rows = np.zeros((len(units[part]), len(self.lower)))
                rows[np.arange(len(rows)), units[part]] = np.where(signs[part] == 0, -1.0, 1.0)
                excess = Excess.of(self.reader, [Clause(row[None], np.zeros(1)) for row in rows])
                search = CounterexampleSearch.of(excess, region, seed + first)
                self.learn(search.descend(torch.arange(len(rows)), deadline)[0].numpy())


def decide_states(states: ReluStates, settings: MipSettings, deadline: Deadline) -> None:
    """Solve the program until no open state is left, or until time is over; then ``complete`` is False."""
    try:
        if states.open.any():
            what = "the program for units whose states no input shows"
            with left_out_if_too_large(what), kept_if_solver_fails(what):
                program = _StateProgram(states, settings, deadline)
                with open_problem(program.encoding, settings.solver, options=settings.options) as problem:
                    while states.open.any() and not deadline.passed and program.solve_once(problem, deadline):
                        states.keep()
    except TimeLimitReached:  # what was proven before holds
        pass
    states.complete = not states.open.any()
    if not states.complete:
        add_warning(f"{int(states.open.any(axis=0).sum()):,} units are kept for which it is not decided whether they change their state")


class _StateProgram:
    """The network with one binary per open state, which may be 1 only if the state is reached up to a tolerance."""

    def __init__(self, states: ReluStates, settings: MipSettings, deadline: Deadline) -> None:
        self.states = states
        known = states.bounds
        network, formulation = states.network.without_softmax(), settings.formulation
        self.encoding = encode(network, known.region, bounds=known, formulation=formulation, time_limit=deadline)
        self.sign, self.unit = np.nonzero(states.open)
        model, turn = self.encoding.model, np.where(self.sign == 0, 1.0, -1.0)
        self.reached = add_variables(model, "reached", 0, 1, {"state": np.arange(len(self.unit))}, binary=True)
        read = [self.encoding.values[states.network[name].inputs[0]].reshape(-1) for name in states.where]
        value = concatenate(read, 0)[self.unit] * turn
        lower = np.where(self.sign == 0, states.lower[self.unit], -states.upper[self.unit])
        reached = -STATE_TOLERANCE_RELATIVE * np.maximum(np.abs(states.lower), np.abs(states.upper))[self.unit]
        labels = np.asarray(self.reached.labels.values)
        rows = value - Affine.of(labels) * (reached - lower)
        self.encoding.own_rows.append("reached_if")
        add_rows(model, "reached_if", rows, ">=", lower, ("state",), self.encoding.samples)
        model.add_objective(self.reached.sum(), sense="max")
        self.one_by_one = False  # whether the next solve is about one state, because the point of the last one reaches none that was left
        self.asked = np.ones(len(self.unit), dtype=bool)
        self.encoding.fills.append((labels, lambda point: ((value.evaluate(point) >= reached) & self.asked).astype(np.float64)))

    def solve_once(self, problem: OpenProblem, deadline: Deadline) -> bool:
        """Solve once; return False if no point was found in time.

        Of two solves that follow each other, one at least shows, excludes or keeps a state: a solver's point may reach states within its
        tolerances alone, and the network's own values at it none; then the next solve asks about one state.
        """
        states = self.states
        self.asked = left = states.open[self.sign, self.unit]
        if self.one_by_one:
            left &= left.cumsum() == 1
        problem.set_bounds(self.reached, upper=left.astype(np.float64))
        program = problem.problem.program
        tolerance = tolerance_margin(program, program.cost, program.offset, problem.tolerances)
        found = problem.solve(limits=Limits(gap=STATE_PROGRAM_GAP, gap_abs=STATE_PROGRAM_GAP), time_limit=deadline)
        states.rounds, states.nodes = states.rounds + 1, states.nodes + found.nodes
        if found.bound + tolerance < 1:
            on, off = self.unit[left & (self.sign == 0)], self.unit[left & (self.sign == 1)]
            states.upper[on] = np.minimum(states.upper[on], 0.0)
            states.lower[off] = np.maximum(states.lower[off], 0.0)
            return True
        if found.interrupted:
            raise KeyboardInterrupt
        if found.point is None:
            return False
        reached = found.point[self.reached.labels.values] > 0.5
        states.learn(self.encoding.value("input", found.point))
        again = reached & states.open[self.sign, self.unit]
        if self.one_by_one and not reached.any():
            again = left & states.open[self.sign, self.unit]
        states.kept[self.unit[again]] = True  # reached only within the tolerance: neither state can be excluded
        self.one_by_one = not self.one_by_one and not reached.any()
        return True
