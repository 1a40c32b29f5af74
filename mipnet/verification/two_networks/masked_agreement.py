"""Agreement of a masked network with the whole one: do both name the same class in balls around given images?

The masked network is an ordinary `Network` with one more layer, a 0/1 scale, after each gate site that loses units.  All other layers stay
the same, so for `mipnet.agree_on_class` both networks are equal up to the first mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.layers import Scale
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.gates import Gate, by_unit, mask_actions
from mipnet.network.graph import Layer, Network, free_name
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.sets import Box, LInf
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.two_networks.agree_on_class import agree_on_class
from mipnet.verification.two_networks.agreement import Agreement


@dataclass(frozen=True)
class ImageBalls:
    """Which balls ``|x - image| <= radius`` are asked about: those around the first ``count`` images that both networks classify alike.

    The balls are clipped to ``clip``, or to the smallest and the largest number of the images if that is None.
    """

    radius: float
    count: int = 4
    clip: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class BallAgreement:
    """The result for the ball around one image: ``index`` is its number in the data, ``label`` the class that both networks name.

    ``result`` is `proven`, or `refuted` with a ``point`` of the ball at which the whole and the masked network name ``classes``, or `open`.
    """

    index: int
    label: int
    result: Literal["proven", "refuted", "open"]
    method: str | None
    seconds: float
    point: Array | None
    classes: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class BallAgreements:
    """The results for balls of ``radius``, clipped to ``clip``, around ``asked`` images; fewer results if Ctrl-C ``interrupted``."""

    radius: float
    clip: tuple[float, float]
    asked: int
    balls: tuple[BallAgreement, ...]
    interrupted: bool

    def count(self, result: str) -> int:
        """Return the number of balls with this result."""
        return sum(ball.result == result for ball in self.balls)


def masked_network(network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> Network:
    """Return the network with pruned units set to 0, as by `mipnet.network.gates.mask_actions`; without pruned units, the same layers."""
    masks = by_unit(gates, masks)
    kept = {site: torch.tensor(masks[gate.name].values) for gate in gates for site in gate.sites}
    taken, names = {node.name for node in network.nodes}, dict[str, str]()
    layers: list[tuple[str, Layer, tuple[str, ...]]] = []
    for node in network.nodes:
        layers.append((node.name, node.layer, tuple(names.get(name, name) for name in node.inputs)))
        if node.name in kept and not kept[node.name].all():
            factor = kept[node.name].to(torch.float64).reshape(-1, *[1] * (len(node.shape) - 1))
            names[node.name] = free_name(f"{node.name}_masked", taken)
            layers.append((names[node.name], Scale(factor, torch.zeros_like(factor)), (node.name,)))
    origins = {node.name: node.origin for node in network.nodes}
    return Network.build(
        network.input_shape, layers, origins=origins, notes=network.notes, modules=network.modules, softmax=network.softmax
    )


def agree_around(
    network: Network,
    gates: Sequence[Gate],
    masks: xr.Dataset,
    images: Array,
    asked: ImageBalls,
    *,
    time_limit: TimeLimit = 40.0,
    backend: str | Backend | MipSettings = "highs",
) -> BallAgreements:
    """Return whether the whole and the masked network name the same class all over each ball around an image.

    ``time_limit`` is in seconds of the whole call, shared by the images; None for no limit.  Agreement is that of `mipnet.agree_on_class`;
    a point at which the classes differ is confirmed by forward passes in torch, with the masks applied.
    """
    deadline = Deadline.after(time_limit)
    actions, small = mask_actions(gates, masks), masked_network(network, gates, masks)
    alike = dict(islice(_alike(network, actions, images, deadline), asked.count))
    ends = (float(images.min()), float(images.max())) if asked.clip is None else asked.clip
    balls, interrupted = list[BallAgreement](), False
    try:
        for left, (index, label) in zip(range(len(alike), 0, -1), alike.items(), strict=True):
            region = LInf(images[index : index + 1], asked.radius, *ends)
            found = agree_on_class(network, small, region, backend=backend, time_limit=deadline.share(1 / left))
            there = [network.forward(found.point[None], after) for after in (None, actions)] if found.point is not None else []
            balls.append(_ball(index, label, found, region, [int(y.argmax()) for y in there]))
            if found.interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:  # the results so far hold
        interrupted = True
    return BallAgreements(asked.radius, ends, len(alike), tuple(balls), interrupted)


def _alike(
    network: Network, actions: Mapping[str, Callable[[torch.Tensor], torch.Tensor]], images: Array, deadline: Deadline
) -> Iterator[tuple[int, int]]:
    """Yield the number and the class of every image that the whole and the masked network classify alike, until the deadline."""
    at_once = samples_at_once(network)
    for first in range(0, len(images), at_once):
        part = images[first : first + at_once]
        whole, masked = (network.forward(part, after).argmax(axis=1) for after in (None, actions))
        yield from ((first + int(k), int(whole[k])) for k in np.flatnonzero(whole == masked))
        if deadline.passed:
            return


def _ball(index: int, label: int, found: Agreement, region: Box, classes: list[int]) -> BallAgreement:
    if found.agree is True:
        return BallAgreement(index, label, "proven", found.method, found.seconds, None, None)
    x = found.point
    if found.agree is False and x is not None and classes[0] != classes[1] and region.contains(x[None], 0.0):
        return BallAgreement(index, label, "refuted", found.method, found.seconds, x, (classes[0], classes[1]))
    return BallAgreement(index, label, "open", None, found.seconds, None, None)
