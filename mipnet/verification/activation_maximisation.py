"""`activation_maximisation`: the input of a set at which a unit, or the score of a class, is largest, and a proven upper bound of it.

Erhan, Bengio, Courville and Vincent, "Visualizing Higher-Layer Features of a Deep Network" (2009), by gradient ascent, without a bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Shape
from mipnet.backend import Backend
from mipnet.bounds.crown_rows import ancestors
from mipnet.errors import InputError, shown, suggest_keywords
from mipnet.layers.dense import Dense
from mipnet.layers.pool import MaxPool2d
from mipnet.layers.shape import Reshape
from mipnet.layers.window import Window
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.network.graph import INPUT_NODE, Layer, Network, free_name, size
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.certified_minimum import MinimumSearch, MinimumSettings
from mipnet.verification.named_features import NamedFeatures
from mipnet.verification.output_functions import OutputFunctions
from mipnet.verification.reach import check_tolerance, one_box
from mipnet.verification.robustness import class_differences

Unit = int | tuple[str, int | Sequence[int]] | str
"""A class; a node and the element of its value, ``("fc1", 3)`` or ``("conv1", (0, 2, 2))``; or a node with a single element."""


@dataclass(frozen=True, eq=False)
class ActivationMaximum:
    """The largest value over the set lies in ``[value, bound]``; ``value`` is attained at ``point``, labelled by feature.

    ``unit`` says of what, in words.  ``method`` is the stage that proved the bound, as in `mipnet.Reached`.  The ``status`` is ``optimal``
    if the gap is at most the tolerance, and else ``feasible``; ``warnings`` say what was not closed or left out.
    """

    unit: str
    point: xr.DataArray
    value: float
    bound: float
    status: Literal["optimal", "feasible"]
    method: str
    seconds: float
    parts: int
    nodes: int
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """``bound - value``."""
        return self.bound - self.value


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
@carries_warnings
def activation_maximisation(
    network: Network,
    unit: Unit,
    region: Box,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 60.0,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> ActivationMaximum:
    """Find the input of a set at which a unit has its largest value, or a class its largest score, and prove how large that is.

        mn.activation_maximisation(net, 3, mn.Box(low, high))             # the input that is most of class 3
        mn.activation_maximisation(net, ("fc1", 7), mn.ConvexHull(data))  # the pre-activation of unit 7, near data

    Parameters
    ----------
    unit
        A class k, for its score ``y_k - max_j y_j`` over the other classes j (of the logits, if the network ends in a softmax); with one
        output, 0 for the output itself.  Or ``(node, element)``: a dense layer or convolution for a value before the activation, the
        activation for the value after it.
    region
        One input set: a box, a ball, a `Polytope` or a `ConvexHull`.
    backend, time_limit, tolerance, seed
        As those of `mipnet.reach`, which bounds the value by the same stages.

    Raises `NetworkError` for an unknown node, and `InputError` for a class or an element that there is not.
    """
    began, deadline = time.monotonic(), Deadline.after(time_limit)
    region = one_box(network, region)
    check_tolerance(tolerance)
    part, sign, word = _value_network(network, unit)
    functions = OutputFunctions(np.array([[sign]]), np.zeros(1), np.zeros(1, dtype=np.int64))
    search = MinimumSearch(part, functions, region, MinimumSettings(MipSettings.of(backend), deadline, tolerance, seed=seed))
    (found,) = search.run()
    closed = found.value - found.bound <= tolerance * found.size
    if not closed:
        add_warning(
            f"the largest value of {word} lies between {-found.value:.6g} and {-found.bound:.6g}: it is not closed to {tolerance:g}"
        )
    return ActivationMaximum(
        word,
        NamedFeatures.of(network, None).labelled(found.point),
        0.0 - found.value,
        0.0 - found.bound,
        "optimal" if closed else "feasible",
        found.method,
        time.monotonic() - began,
        search.parts,
        search.nodes,
        search.interrupted,
    )


class _ValueNetwork(NamedTuple):
    """A network with one output; ``sign`` times it is minimised where the unit is maximised.  ``word`` says which unit it is."""

    network: Network
    sign: float
    word: str


def _value_network(network: Network, unit: Unit) -> _ValueNetwork:
    if isinstance(unit, str):
        unit = (unit, 0) if size(network[unit].shape) == 1 else (unit, ())
    if isinstance(unit, int | np.integer) and not isinstance(unit, bool):
        return _class_score(network, int(unit))
    if not isinstance(unit, tuple | list) or len(unit) != 2 or not isinstance(unit[0], str):
        raise InputError(f"the unit is {shown(unit)}; expected a class, or a node and an element of it: ('{network.nodes[0].name}', 0)")
    node = network[unit[0]]
    element = _element(node.shape, unit[1], node.name)
    rows = np.zeros((1, size(node.shape)))
    rows[0, element] = 1.0
    part = Network(network.input_shape, tuple(ancestors(network, node.name)))
    return _ValueNetwork(_followed(part, [("unit", Dense(torch.tensor(rows)))]), -1.0, f"element {element} of `{node.name}`")


def _element(shape: Shape, given: Any, name: str) -> int:
    """Return the flat position of an element of a node, given by its number, or by one number per axis."""
    index = (given,) if isinstance(given, int | np.integer) and not isinstance(given, bool) else given
    if isinstance(index, tuple | list) and all(isinstance(k, int | np.integer) and not isinstance(k, bool) for k in index):
        for sizes in ((size(shape),), shape):
            if len(index) == len(sizes) and all(0 <= k < n for k, n in zip(index, sizes, strict=True)):
                return int(np.ravel_multi_index(tuple(index), sizes))
    numbers = f"a number from 0 to {size(shape) - 1}" + (f", or an index into the shape {shape}" if len(shape) > 1 else "")
    raise InputError(f"the element of `{name}` is {shown(given)}; expected {numbers}")


def _class_score(network: Network, k: int) -> _ValueNetwork:
    count, own = size(network.output_shape), network.without_softmax()
    network.check_classes()
    if not 0 <= k < count:
        raise InputError(f"the class is {k}; expected a number from 0 to {count - 1}, or a node and an element of it")
    if count == 1:
        return _ValueNetwork(_followed(own, []), -1.0, "the output")
    layers: list[tuple[str, Layer]] = [("others", Dense(torch.tensor(class_differences(count, k, [j for j in range(count) if j != k]))))]
    if count > 2:
        window = Window((1, count - 1), (1, count - 1))
        layers += [("row", Reshape((1, 1, count - 1))), ("largest", MaxPool2d(window)), ("score", Reshape((1,)))]
    return _ValueNetwork(_followed(own, layers), 1.0, f"the score of class {k}")


def _followed(network: Network, layers: list[tuple[str, Layer]]) -> Network:
    """Return a network with flat outputs, followed by further layers."""
    known = [(node.name, node.layer, node.inputs) for node in network.nodes]
    taken, last = {INPUT_NODE, *(node.name for node in network.nodes)}, network.output.name
    for name, layer in (("flat", Reshape((size(network.output_shape),))), *layers):
        known.append((free_name(name, taken), layer, (last,)))
        last = known[-1][0]
    return Network.build(network.input_shape, known)
