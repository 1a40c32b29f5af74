"""The convex and the concave envelope of a network over the box of its inputs, as rows, where few inputs are free.

A piecewise linear function takes its convex envelope at vertices of its linear regions: the envelope is the lower hull of these vertices
with the output there (`mipnet.embedding.linear_regions`).  Qhull finds the slopes of its facets; each facet is then moved to the lowest
vertex, and down by the error of the vertices, so that it holds whatever Qhull rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from mipnet.arrays import Array, Csr, Ints
from mipnet.embedding.linear_regions import REGIONS_MAX, RegionVertices, has_regions
from mipnet.embedding.region_shares import BOXES_AUTO_MAX, BoxCases, RegionsChoice
from mipnet.errors import UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows
from mipnet.formulations.program_size import ProgramSize
from mipnet.limits.deadline import Deadline
from mipnet.limits.memory import check_memory, fits
from mipnet.model.encoding import Encoding
from mipnet.network.graph import INPUT_NODE

ENVELOPE_INPUTS_MAX = 3
"""Largest number of free inputs for which envelopes are computed."""

ENVELOPE_COPIES = 4
"""Copies of the rows of envelopes that exist at the same time while they are written."""

STEEP_FACET = 1e-6
"""Facets whose normal has a smaller share along the output are left out: they are sides of the box, up to rounding."""

EQUAL_FACETS = 9
"""Number of decimals to which facets of the scaled hull are compared."""


@dataclass(frozen=True, eq=False)
class Facets:
    """``output >= slopes @ x + constants`` for the lower side, ``<=`` for the upper one, in the free inputs x."""

    slopes: Array
    constants: Array


def add_envelopes(enc: Encoding, cases: BoxCases, wanted: RegionsChoice, prefix: str, deadline: Deadline) -> None:
    """Write the envelopes of all samples and outputs; samples with the same input set share the computation.

    Samples with no more than one linear region, whose rows are exact already, get none; nor, with ``"auto"``, do samples for which the
    envelope cannot be computed.  With True these raise `UnsupportedError`.  The same holds for rows that would not fit into memory, with
    `MemoryLimitReached`.
    """
    few = cases.free.any(axis=1) & (cases.free.sum(axis=1) <= ENVELOPE_INPUTS_MAX)
    if wanted is False or (wanted == "auto" and (len(cases) > BOXES_AUTO_MAX or not has_regions(enc.network))):
        return
    if wanted is True and not has_regions(enc.network):
        raise UnsupportedError("the envelope is asked for, and the network has layers that are neither affine nor ReLU, LeakyReLU or Clip")
    if wanted is True and cases.free_max > ENVELOPE_INPUTS_MAX:
        raise UnsupportedError(
            f"the envelope is asked for, and {cases.free_max} inputs of the network are not fixed; expected at most"
            f" {ENVELOPE_INPUTS_MAX}: write `envelope='auto'`"
        )
    rows = {upper: _EnvelopeRows() for upper in (False, True)}
    for case in range(len(cases)):
        if few[case] and not deadline.passed:
            _add_case(enc, cases, case, rows, deadline, if_it_fits=wanted == "auto")
    for upper, found in rows.items():
        if found.right:
            name = f"{prefix}envelope_{'above' if upper else 'below'}"
            add_rows(enc.model, name, found.value, "<=" if upper else ">=", found.ends, (f"{name}_number",), enc.samples)
            enc.own_rows.append(name)


def _add_case(enc: Encoding, cases: BoxCases, case: int, rows: dict[bool, _EnvelopeRows], deadline: Deadline, *, if_it_fits: bool) -> None:
    """Add the rows of samples with the same input set; with ``if_it_fits`` none if they would need too much memory."""
    samples, columns = cases.samples(case), np.flatnonzero(cases.free[case])
    vertices = cases.vertices(enc.network, case, REGIONS_MAX, deadline)
    if vertices is None or len(vertices.regions) < 2:
        return
    source = enc.values[INPUT_NODE]
    labels = np.full(source.row_sizes.shape, -1, dtype=np.int64)
    labels[source.row_sizes > 0] = source.terms.indices
    inputs = labels.reshape(len(enc.samples), -1)[np.ix_(samples, columns)]
    outputs = enc.output_labels.reshape(len(enc.samples), -1)[samples]
    sides = [(upper, k, envelope(vertices, columns, k, upper=upper)) for upper in rows for k in range(outputs.shape[1])]
    count = sum(each.count for each in rows.values()) + len(samples) * sum(len(facets.constants) for _, _, facets in sides)
    size = ProgramSize(rows=count, nonzeros=count * (1 + ENVELOPE_INPUTS_MAX))
    if if_it_fits and not fits(ENVELOPE_COPIES * size.bytes):
        return
    check_memory(f"the rows of the envelope ({size})", ENVELOPE_COPIES * size.bytes, "write `envelope=False`, or give fewer samples")
    for upper, k, facets in sides:
        for x, y in zip(inputs, outputs[:, k], strict=True):
            rows[upper].add(facets, x, int(y))


@dataclass(eq=False)
class _EnvelopeRows:
    """Rows of one side: the labels and coefficients of each, padded to a common length, and the right-hand sides."""

    labels: list[Ints] = field(default_factory=list)
    factors: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)

    def add(self, facets: Facets, inputs: Ints, output: int) -> None:
        """Add the facets of one output of one sample."""
        count, lacking = len(facets.constants), ENVELOPE_INPUTS_MAX - len(inputs)
        labels = np.concatenate([[output], inputs, np.zeros(lacking, dtype=np.int64)])
        self.labels.append(np.broadcast_to(labels, (count, len(labels))))
        self.factors.append(np.column_stack([np.ones(count), -facets.slopes, np.zeros((count, lacking))]))
        self.right.append(facets.constants)

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(map(len, self.right))

    @property
    def ends(self) -> Array:
        """The right-hand sides."""
        return np.concatenate(self.right)

    @property
    def value(self) -> Affine:
        """The left-hand sides."""
        labels, factors = np.concatenate(self.labels), np.concatenate(self.factors)
        row = np.repeat(np.arange(len(labels)), labels.shape[1])
        terms = Csr((factors.reshape(-1), (row, labels.reshape(-1))), shape=(len(labels), int(labels.max()) + 1))
        terms.eliminate_zeros()
        return Affine(terms, np.zeros(len(labels)))


def envelope(vertices: RegionVertices, free: Ints, output: int, *, upper: bool) -> Facets:
    """Return the facets of the convex envelope of one output, or of the concave one if ``upper`` is True."""
    sign = -1.0 if upper else 1.0
    points, values = vertices.points.reshape(len(vertices.points), -1)[:, free], sign * vertices.values[:, output]
    slopes = _lower_slopes(points, values)
    constants = (values[:, None] - points @ slopes.T).min(axis=0)
    size = np.abs(values).max() + (np.abs(points) @ np.abs(slopes.T)).max(axis=0)
    constants -= vertices.error[output] + 1e-14 * size
    return Facets(sign * slopes, sign * constants)


def _lower_slopes(points: Array, values: Array) -> Array:
    """Return the slopes of the facets of the lower hull.  A point far above makes the hull full, also of an affine function."""
    lower, width = points.min(axis=0), np.ptp(points, axis=0)
    height = float(np.ptp(values)) or 1.0
    scaled = np.column_stack([(points - lower) / width, (values - values.min()) / height])
    above = np.append(np.full(points.shape[1], 0.5), 3.0)
    try:
        facets = ConvexHull(np.vstack([scaled, above])).equations
    except QhullError:
        return np.zeros((1, points.shape[1]))
    facets = facets[facets[:, -2] < -STEEP_FACET]
    slopes = np.unique(np.round(-facets[:, :-2] / facets[:, -2:-1], EQUAL_FACETS), axis=0)
    found: Array = slopes * height / width
    return found
