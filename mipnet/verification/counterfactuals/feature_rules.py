"""Rules of counterfactuals as rows of a program and as checks of points: whole numbers, one-hot groups, and unlike earlier answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from mipnet.arrays import Array, Csr, Ints, Mask
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import Sense, add_rows, add_variables
from mipnet.model.encoding import Encoding
from mipnet.network.graph import INPUT_NODE

SNAP_SHARES = 0.0, 3e-6
"""A feature that changes by at most this share of its range may be set back; both variants of a point are tried."""

APART_SLACK = 1e-9
"""How much less than asked for a point may be apart from an earlier answer, relative to what was asked for."""


class Unlike(Protocol):
    """How the next answer has to differ from an earlier one; inputs are flat."""

    def hold(self, x: Array) -> Mask:
        """Return which inputs ``(n, inputs)`` differ as they should."""

    def possible(self, lower: Array, upper: Array) -> bool:
        """Return whether some input between ``lower`` and ``upper`` differs as it should."""

    def write(self, encoding: Encoding, x: Affine, lower: Array, upper: Array, name: str) -> None:
        """Add the rows for the flat input x, which lies between ``lower`` and ``upper``."""


@dataclass(frozen=True, eq=False)
class LeavesOneUnchanged:
    """At least one of the ``features`` that an earlier answer changes has its value in ``image`` ``(inputs,)``.

    -(1 - u) (image - lower) <= x - image <= (1 - u) (upper - image),   sum(u) >= 1,   one binary u per feature
    """

    image: Array
    features: Ints

    def hold(self, x: Array) -> Mask:
        """Return which inputs have one of the values of the image."""
        return np.asarray((x[:, self.features] == self.image[self.features]).any(axis=1))

    def _kept(self, lower: Array, upper: Array) -> Ints:
        return self.features[((self.image >= lower) & (self.image <= upper))[self.features]]

    def possible(self, lower: Array, upper: Array) -> bool:
        """Return whether the value of the image is in reach of one of the features."""
        return bool(len(self._kept(lower, upper)))

    def write(self, encoding: Encoding, x: Affine, lower: Array, upper: Array, name: str) -> None:
        """Add the binaries and rows; a feature whose value in the image is out of reach has none."""
        kept, dims = self._kept(lower, upper), (f"{name}_feature",)
        own, u = self.image[kept], add_variables(encoding.model, name, 0.0, 1.0, {dims[0]: kept}, binary=True)
        binary = Affine.of(u.labels.values)
        _add(encoding, f"{name}_at_most", x[kept] + binary * (upper[kept] - own), "<=", upper[kept], dims)
        _add(encoding, f"{name}_at_least", x[kept] + binary * (lower[kept] - own), ">=", lower[kept], dims)
        _add(encoding, f"{name}_one", binary.total().reshape(1), ">=", np.ones(1), dims)
        encoding.fills.append((np.asarray(u.labels.values), partial(_equal_at, x[kept], own)))


@dataclass(frozen=True, eq=False)
class IsApart:
    """At least one feature differs from an earlier answer, ``other`` ``(inputs,)``, by ``apart`` ``(inputs,)`` or more.

    x >= other + apart - (1 - p) M,   x <= other - apart + (1 - q) M,   sum(p) + sum(q) >= 1,   two binaries p, q per feature
    """

    other: Array
    apart: Array

    def hold(self, x: Array) -> Mask:
        """Return which inputs differ in one feature."""
        return np.asarray((np.abs(x - self.other) >= self.apart * (1 - APART_SLACK)).any(axis=1))

    def possible(self, lower: Array, upper: Array) -> bool:
        """Return whether a side of some feature is in reach."""
        return bool(((self.other + self.apart <= upper) | (self.other - self.apart >= lower)).any())

    def write(self, encoding: Encoding, x: Affine, lower: Array, upper: Array, name: str) -> None:
        """Add the binaries and rows; a side that is out of reach has none."""
        ends = self.other + self.apart, self.other - self.apart
        above, below = np.flatnonzero(ends[0] <= upper), np.flatnonzero(ends[1] >= lower)
        dims = (f"{name}_side",)
        sides = add_variables(encoding.model, name, 0.0, 1.0, {dims[0]: np.arange(len(above) + len(below))}, binary=True)
        binary = Affine.of(sides.labels.values)
        p, q = binary[np.arange(len(above))], binary[len(above) + np.arange(len(below))]
        if len(above):
            _add(encoding, f"{name}_above", x[above] - p * (ends[0] - lower)[above], ">=", lower[above], dims)
        if len(below):
            _add(encoding, f"{name}_below", x[below] + q * (upper - ends[1])[below], "<=", upper[below], dims)
        _add(encoding, f"{name}_one", binary.total().reshape(1), ">=", np.ones(1), dims)
        fill = partial(_beyond_at, x[above], ends[0][above], x[below], ends[1][below])
        encoding.fills.append((np.asarray(sides.labels.values), fill))


@dataclass(frozen=True, eq=False)
class FeatureRules:
    """Whole numbers in the features ``integer``, exactly one 1 in each of the ``groups``, which are 0 or 1, and ``unlike`` earlier answers.

    ``image`` and ``ranges`` ``(inputs,)`` are the given input, and the range of each feature.
    """

    image: Array
    ranges: Array
    integer: Ints
    groups: tuple[Ints, ...]
    unlike: tuple[Unlike, ...] = ()

    def repaired(self, x: Array) -> Array:
        """Return inputs with whole numbers rounded, the largest of a group at 1, and small changes kept or undone."""
        variants = []
        for share in SNAP_SHARES:
            found = np.where(np.abs(x - self.image) <= share * self.ranges, self.image, x)
            found[:, self.integer] = np.round(found[:, self.integer])
            for group in self.groups:
                most = x[:, group].argmax(axis=1)
                found[:, group] = 0.0
                found[np.arange(len(x)), group[most]] = 1.0
            variants.append(found)
        return np.concatenate(variants)

    def hold(self, x: Array) -> Mask:
        """Return which inputs satisfy all rules, exactly."""
        holds = (x[:, self.integer] == np.round(x[:, self.integer])).all(axis=1)
        for group in self.groups:
            holds &= np.isin(x[:, group], (0.0, 1.0)).all(axis=1) & (x[:, group].sum(axis=1) == 1)
        for each in self.unlike:
            holds &= each.hold(x)
        return np.asarray(holds)

    @property
    def whole(self) -> Ints:
        """The features that are whole numbers, those of the groups included."""
        return np.unique(np.concatenate([self.integer, *self.groups])).astype(np.int64)

    def possible(self, lower: Array, upper: Array) -> bool:
        """Return whether there are whole numbers between these ends, and values that differ from earlier answers."""
        ends = np.ceil(lower[self.whole]), np.floor(upper[self.whole])
        return bool((ends[0] <= ends[1]).all()) and all(each.possible(lower, upper) for each in self.unlike)

    def write(self, encoding: Encoding) -> None:
        """Add whole variables that equal features, a row per group, and what the earlier answers ask for."""
        x = encoding.values[INPUT_NODE].reshape(-1)
        lower, upper = (end.reshape(-1) for end in (encoding.region.lower, encoding.region.upper))
        whole = self.whole
        if len(whole):
            ends = np.ceil(lower[whole]), np.floor(upper[whole])
            n = add_variables(encoding.model, "whole", *ends, {"whole_feature": whole}, integer=True)
            _add(encoding, "whole_is", x[whole] - Affine.of(n.labels.values), "=", np.zeros(len(whole)), ("whole_feature",))
            encoding.fills.append((np.asarray(n.labels.values), partial(_rounded_at, x[whole])))
        if self.groups:
            chosen = np.zeros((len(self.groups), len(lower)))
            for row, group in zip(chosen, self.groups, strict=True):
                row[group] = 1.0
            sums = x.reshape(1, -1).through(Csr(chosen), np.zeros((1, len(chosen)))).reshape(-1)
            _add(encoding, "one_hot", sums, "=", np.ones(len(chosen)), ("one_hot_group",))
        for number, each in enumerate(self.unlike):
            each.write(encoding, x, lower, upper, f"unlike_{number}")


def _add(encoding: Encoding, name: str, value: Affine, sense: Sense, right: Array, dims: Sequence[str]) -> None:
    add_rows(encoding.model, name, value, sense, right, tuple(dims), encoding.samples)
    encoding.own_rows.append(name)


def _equal_at(x: Affine, own: Array, point: Array) -> Array:
    return np.where(x.evaluate(point) == own, 1.0, 0.0)


def _beyond_at(above: Affine, high: Array, below: Affine, low: Array, point: Array) -> Array:
    found = np.concatenate([above.evaluate(point) >= high * 1.0, below.evaluate(point) <= low * 1.0])
    return np.where(found, 1.0, 0.0)


def _rounded_at(x: Affine, point: Array) -> Array:
    return np.round(x.evaluate(point))
