"""A network with few free inputs as rows over the vertices of its linear regions, in place of rows per neuron.

The free inputs x and the values of all nodes are the same mean of their values at vertices, with shares m as variables::

    x = sum_v m_v x_v,     node = sum_v m_v node_v,     sum_v m_v = 1,     m >= 0

A network is affine in each linear region, so this is exact if all vertices with m_v > 0 belong to one region.  For every activation whose
argument z has both signs at vertices, a binary a chooses one of them::

    sum of m_v over z_v > 0  <=  a,     sum of m_v over z_v < 0  <=  1 - a

A vertex with the signs that all binaries choose, or with zeros there, lies in the closed region that they describe.  There is no big-M.
The linear relaxation is the convex hull of the network over the box, and after every branching that of what is left: the independent
branching schemes of Vielma and Nemhauser 2011, with the kinks of the network as branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Csr, Ints, Mask, Shape
from mipnet.embedding.region_shares import REGION_INPUTS_MAX, NetworkRegions
from mipnet.errors import UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block, ChosenFormulation, Phases
from mipnet.formulations.linopy_rows import add_rows, add_variables
from mipnet.formulations.program_size import ProgramSize
from mipnet.formulations.registry import RegisteredFormulation
from mipnet.limits.deadline import Deadline
from mipnet.limits.memory import fits
from mipnet.model.encode import add_output, check_output_name, new_block
from mipnet.model.encoding import Encoding, register
from mipnet.network.graph import INPUT_NODE

REGIONS_FORMULATION = "regions"
"""Name of the formulation of activations whose network is written by its linear regions."""

REGION_COPIES = 4
"""Copies of the rows that exist at the same time while they are written."""


def regions_size(regions: NetworkRegions) -> ProgramSize:
    """Return the size of the program of a network that is written by its regions, with the terms of the values of all nodes."""
    total = ProgramSize()
    for _, vertices in regions:
        count, cut = len(vertices.points), sum(int(_crossed(sides).sum()) for sides in vertices.sides.values())
        values = sum(each.shape[1] for each in vertices.nodes.values())
        total += ProgramSize(count + cut, 2 * cut + vertices.points[0].size + 1, float(count * (cut + values) + 2 * cut))
    return total


def regions_fit(regions: NetworkRegions) -> bool:
    """Return True if the program of a network that is written by its regions fits into memory."""
    return fits(REGION_COPIES * regions_size(regions).bytes)


def write_regions(enc: Encoding, regions: NetworkRegions, deadline: Deadline, *, prefix: str = "") -> None:
    """Write a network by its linear regions; the value of the input is known."""
    writer = _RegionWriter.of(enc, regions, prefix)
    for node in enc.network.nodes:
        deadline.check(f"write layer `{node.name}` into the model")
        enc.values[node.name] = writer.value([each.nodes[node.name] for each in regions.vertices], node.shape)
        enc.blocks[node.name] = block = new_block(enc, node, prefix)
        if node.layer.activation:
            writer.write_sides(block)
    add_output(enc, prefix, writer.output_ends())
    register(enc)


@dataclass(frozen=True, eq=False)
class _RegionWriter:
    """Writes values and rows over the shares of vertices, whose labels begin with ``first``."""

    regions: NetworkRegions
    first: int

    @staticmethod
    def of(enc: Encoding, regions: NetworkRegions, prefix: str) -> _RegionWriter:
        """Add the shares, and the rows by which they sum to 1 and the free inputs are means."""
        name, count = f"{prefix}shares", int(regions.starts[-1])
        check_output_name(enc.model, prefix)
        labels = add_variables(enc.model, name, 0.0, 1.0, {f"{name}_vertex": np.arange(count)}).labels.values
        writer, given = _RegionWriter(regions, int(labels[0])), enc.values[INPUT_NODE]
        enc.fills.append((labels, lambda point: regions.shares(given.evaluate(point))))
        ones = writer.value([np.ones((len(each.points), 1)) for each in regions.vertices], (1,), shifted=False)
        means = writer.value([each.nodes[INPUT_NODE] for each in regions.vertices], enc.network.input_shape)
        free = regions.cases.free[regions.cases.case_of].reshape(given.shape)
        for suffix, value, right in (("sum", ones, 1.0), ("mean", (given - means)[free], 0.0)):
            enc.own_rows.append(f"{name}_{suffix}")
            add_rows(enc.model, enc.own_rows[-1], value.reshape(-1), "=", right, (f"{name}_{suffix}_number",), enc.samples)
        return writer

    def value(self, at_vertices: Sequence[Array], shape: Shape, *, shifted: bool = True) -> Affine:
        """Return the mean of values ``(vertex, element)`` of each box, of shape ``(sample, *shape)``.

        With ``shifted``, the smallest value of each element is a constant, for fewer terms.
        """
        cases = self.regions.cases
        lowest = np.array([each.min(axis=0) if shifted else np.zeros(each.shape[1]) for each in at_vertices])
        matrices = [Csr((each - low).T) for each, low in zip(at_vertices, lowest, strict=True)]
        for matrix in matrices:
            matrix.eliminate_zeros()
        used, starts = [matrices[case] for case in cases.case_of], self.first + self.regions.starts
        sizes = np.concatenate([np.diff(each.indptr) for each in used])
        indices = np.concatenate([each.indices + start for each, start in zip(used, starts, strict=False)])
        terms = (np.concatenate([each.data for each in used]), indices.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]))
        return Affine(Csr(terms, shape=(len(sizes), int(starts[-1]))), lowest[cases.case_of].reshape(len(used), *shape))

    def write_sides(self, block: Block) -> None:
        """Add the binaries of an activation that choose a side of each kink, and the rows that keep shares to this side."""
        cases, every = self.regions.cases, [each.sides[block.node.name] for each in self.regions.vertices]
        formulation = RegisteredFormulation(REGIONS_FORMULATION, _written_by_region)
        block.choice = ChosenFormulation(formulation, f"at most {REGION_INPUTS_MAX} inputs are free")
        for kink in range(every[0].shape[1]):
            sides = [each[:, kink] for each in every]
            crossed = np.array([_crossed(each) for each in sides])[cases.case_of].reshape(block.shape)
            on = np.array([(each >= 0).all(axis=0) for each in sides])[cases.case_of].reshape(block.shape) & ~crossed
            suffix = f"_{kink + 1}" if kink else ""
            block.notes.phases[suffix] = Phases(int(on.sum()), int((~on & ~crossed).sum()), int(crossed.sum()))
            if not crossed.any():
                continue
            one_sided = ([np.asarray(sign * each > 0, dtype=np.float64) for each in sides] for sign in (1, -1))
            above, below = (self.value(each, block.node.shape, shifted=False) for each in one_sided)
            chosen = block.variable(f"on{suffix}", 0, 1, where=crossed, binary=True, value=_larger(above, below))
            block.rows(f"above_only_if_on{suffix}", (above - chosen)[crossed], "<=")
            block.rows(f"below_only_if_off{suffix}", (below + chosen)[crossed], "<=", 1.0)

    def output_ends(self) -> tuple[Array, Array]:
        """Return the smallest and the largest output of each sample."""
        case_of, found = self.regions.cases.case_of, self.regions.vertices
        lower = np.array([each.values.min(axis=0) - each.error for each in found])[case_of]
        upper = np.array([each.values.max(axis=0) + each.error for each in found])[case_of]
        return lower, upper


def _crossed(sides: Ints) -> Mask:
    """Return which elements have arguments on both sides of a kink, of shape ``sides.shape[1:]``."""
    return np.asarray((sides > 0).any(axis=0) & (sides < 0).any(axis=0))


def _larger(above: Affine, below: Affine) -> Callable[[Array], Array]:
    return lambda point: (above.evaluate(point) >= below.evaluate(point)).astype(np.float64)


def _written_by_region(*_: object) -> Affine:
    raise UnsupportedError("the formulation `regions` is written for a whole network; give `mn.EmbeddingSettings(regions=True)`")
