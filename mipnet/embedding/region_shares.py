"""A network over the linear regions of each sample's box, and the shares of their vertices of which an input is the mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.optimize import nnls

from mipnet.arrays import Array, Ints, Mask
from mipnet.embedding.linear_regions import REGIONS_MAX, RegionVertices, has_regions, kinks, node_values, region_vertices
from mipnet.errors import TimeLimitReached, UnsupportedError
from mipnet.limits.deadline import Deadline
from mipnet.network.graph import Network
from mipnet.network.sets import Box

REGION_INPUTS_MAX = 6
"""Largest number of free inputs with which a network is written by its linear regions."""

BOXES_AUTO_MAX = 1_000
"""Largest number of different boxes of samples for which ``"auto"`` enumerates linear regions."""

REGIONS_AUTO_MAX = 400
"""Largest number of linear regions of one sample with which ``"auto"`` writes a network by its regions."""

VERTEX_ERROR_MAX = 1e-7
"""Largest error of a value between vertices, relative to 1 or the largest value, with which a network is written by its regions."""

RegionsChoice = bool | Literal["auto"]
"""Whether something is computed from linear regions: ``"auto"`` where it can be."""


@dataclass(frozen=True, eq=False)
class BoxCases:
    """The different boxes of the samples: ``case_of`` each sample, the ``first`` sample of each, and which inputs are ``free`` in it."""

    region: Box
    case_of: Ints
    first: Ints
    free: Mask

    @staticmethod
    def of(region: Box) -> BoxCases:
        """Return the different boxes of an input set."""
        lower, upper = (end.reshape(region.samples, -1) for end in (region.lower, region.upper))
        _, first, case_of = np.unique(np.concatenate([lower, upper], axis=1), axis=0, return_index=True, return_inverse=True)
        return BoxCases(region, case_of.reshape(-1), first, (upper > lower)[first])

    def __len__(self) -> int:
        return len(self.first)

    @property
    def free_max(self) -> int:
        """The largest number of free inputs of a sample."""
        return int(self.free.sum(axis=1).max(initial=0))

    def samples(self, case: int) -> Ints:
        """Return the samples with a box."""
        found: Ints = np.flatnonzero(self.case_of == case)
        return found

    def vertices(self, network: Network, case: int, regions_max: int, deadline: Deadline) -> RegionVertices | None:
        """Return the vertices of the linear regions over a box, None if there are too many or the time is over."""
        first = self.first[case]
        return region_vertices(network, self.region.lower[first], self.region.upper[first], regions_max, deadline)


@dataclass(frozen=True, eq=False)
class NetworkRegions:
    """The linear regions of a network over the box of each sample, one `RegionVertices` per different box."""

    network: Network
    cases: BoxCases
    vertices: list[RegionVertices]

    @staticmethod
    def of(network: Network, cases: BoxCases, wanted: RegionsChoice, deadline: Deadline) -> NetworkRegions | None:
        """Return the regions over all boxes, or None where there is nothing to gain, or with ``"auto"``, where they are too many.

        With True, too many are refused with `UnsupportedError`, or with `TimeLimitReached` after the deadline.
        """
        if wanted is False or not cases.free.any():
            return None
        if fault := _fault(network, cases):
            if wanted is True:
                raise UnsupportedError(f"the network is to be written by its linear regions, and {fault}; write `regions='auto'`")
            return None
        if wanted == "auto" and len(cases) > BOXES_AUTO_MAX:
            return None
        most, found = REGIONS_AUTO_MAX if wanted == "auto" else REGIONS_MAX, list[RegionVertices]()
        for case in range(len(cases)):
            vertices = cases.vertices(network, case, most, deadline)
            if vertices is None or vertices.error_share > VERTEX_ERROR_MAX:
                if wanted is True:
                    _refuse(vertices, most, deadline)
                return None
            found.append(vertices)
        return NetworkRegions(network, cases, found) if any(len(each.regions) > 1 for each in found) else None

    def __iter__(self) -> Iterator[tuple[int, RegionVertices]]:
        return ((sample, self.vertices[case]) for sample, case in enumerate(self.cases.case_of))

    @cached_property
    def starts(self) -> Ints:
        """The number of the first vertex of each sample, and at the end that of all vertices."""
        counts = np.array([len(each.points) for each in self.vertices])
        found: Ints = np.concatenate([[0], np.cumsum(counts[self.cases.case_of])])
        return found

    @cached_property
    def _patterns(self) -> list[_Patterns]:
        return [_Patterns.of(each) for each in self.vertices]

    def shares(self, x: Array) -> Array:
        """Return the shares of all vertices, sample after sample, for inputs ``(sample, *input_shape)`` in the boxes.

        Those of each sample are at least 0, sum to 1, and are positive for vertices of a single region, in which the input lies; they are
        NaN if the input is.
        """
        values = node_values(self.network, x)
        activations = [node for node in self.network.nodes if node.layer.activation]
        away = [np.stack([values[node.inputs[0]] - kink for kink in kinks(node)], axis=1).reshape(len(x), -1) for node in activations]
        arguments, shares, flat = np.concatenate(away, axis=1), np.zeros(self.starts[-1]), x.reshape(len(x), -1)
        known = np.asarray(~np.isnan(flat).any(axis=1))
        for sample, vertices in self:
            case = self.cases.case_of[sample]
            if not known[sample]:
                shares[self.starts[sample] : self.starts[sample + 1]] = np.nan
                continue
            region = vertices.regions[self._patterns[case].nearest(arguments[sample])]
            columns = np.flatnonzero(self.cases.free[case])
            low, high = (end.reshape(len(x), -1)[sample, columns] for end in (self.cases.region.lower, self.cases.region.upper))
            corners = (vertices.points.reshape(len(vertices.points), -1)[region][:, columns] - low) / (high - low)
            mean = np.append((flat[sample, columns] - low) / (high - low), 1.0)
            found = nnls(np.vstack([corners.T, np.ones(len(region))]), mean)[0]
            shares[self.starts[sample] + region] = found / found.sum()
        return shares


@dataclass(frozen=True, eq=False)
class _Patterns:
    """The side of each kink on which each region is, of shape ``(region, kink)``, in units of the largest argument."""

    sides: Array

    @staticmethod
    def of(vertices: RegionVertices) -> _Patterns:
        sides = np.concatenate([each.reshape(len(each), -1) for each in vertices.sides.values()], axis=1)
        of_regions = [sides[region].max(axis=0) + sides[region].min(axis=0) for region in vertices.regions]
        return _Patterns(np.sign(np.array(of_regions, dtype=np.float64)))

    def nearest(self, arguments: Array) -> int:
        """Return the region with these arguments, the nearest one if rounding puts them outside of all."""
        return int(np.argmax((self.sides * arguments).min(axis=1)))


def _fault(network: Network, cases: BoxCases) -> str:
    """Return why a network cannot be written by its regions; empty if it can."""
    if not has_regions(network):
        return "it has layers that are neither affine nor ReLU, LeakyReLU or Clip"
    if cases.free_max > REGION_INPUTS_MAX:
        return f"{cases.free_max} of its inputs are not fixed, more than {REGION_INPUTS_MAX}"
    return ""


def _refuse(vertices: RegionVertices | None, most: int, deadline: Deadline) -> None:
    if deadline.passed:
        raise TimeLimitReached("the time limit was reached while the linear regions of the network were enumerated; raise it")
    fault = f"it has more than {most:,} of them" if vertices is None else "its values are too inexact for that"
    raise UnsupportedError(f"the network is to be written by its linear regions, and {fault}; write `regions='auto'`")
