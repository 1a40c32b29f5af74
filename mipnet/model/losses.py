"""Losses inside a program: cross-entropy (convex, by tangents or natively) and the multi-class margin (plain rows).

For logits y and label c of one sample::

    cross-entropy   log sum_k exp(y_k) - y_c
    margin          max(0, max_{k != c} y_k - y_c + margin)

`add_loss` puts the mean over samples into a model as a linear expression of new variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from linopy import LinearExpression
from numpy.typing import ArrayLike, NDArray

from mipnet.arrays import Array
from mipnet.errors import DataError, InputError, UnboundedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables, expression
from mipnet.model.encoding import Encoding

LossName = Literal["cross-entropy", "margin"]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Loss:
    """A loss by name; ``margin`` is the distance that the true logit must keep (for ``margin`` only)."""

    name: LossName = "cross-entropy"
    margin: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("cross-entropy", "margin"):
            raise InputError(f"the loss is `{self.name}`; expected `cross-entropy` or `margin`")
        if not self.margin >= 0:
            raise InputError(f"the margin is {self.margin}; expected a number of at least 0")

    def values(self, logits: Array, labels: Labels) -> Array:
        """The loss of each sample, from logits ``(sample, class)``."""
        at_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        if self.name == "cross-entropy":
            entropy: Array = np.logaddexp.reduce(logits, axis=1) - at_label
            return entropy
        others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits).max(axis=1)
        missed: Array = np.maximum(0.0, others - at_label + self.margin)
        return missed

    def slopes(self, logits: Array, labels: Labels) -> Array:
        """The derivative of each sample's loss by its logits (a subgradient where the margin loss has a kink)."""
        rows = np.arange(len(labels))
        if self.name == "cross-entropy":
            slope: Array = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        else:
            others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits)
            slope = np.zeros_like(logits)
            slope[rows, others.argmax(axis=1)] = 1.0
        slope[rows, labels] -= 1.0
        if self.name == "margin":
            slope[self.values(logits, labels) == 0] = 0.0
        return slope


def check_labels(labels: ArrayLike, samples: int, classes: int) -> Labels:
    """Labels as integers; raises `DataError` unless there is one in ``0 .. classes-1`` for each sample."""
    array = np.asarray(labels)
    if array.shape != (samples,):
        raise DataError(f"the labels have shape {array.shape}; expected one for each of {samples} samples")
    if array.dtype.kind not in "iu":
        raise DataError(f"the labels have type {array.dtype}; expected integers")
    if array.size and (array.min() < 0 or array.max() >= classes):
        raise DataError(f"the labels run from {array.min()} to {array.max()}; expected 0 to {classes - 1}, one for each output")
    return array.astype(np.int64)


def add_loss(encoding: Encoding, labels: ArrayLike, loss: Loss) -> LinearExpression:
    """The mean loss of the network's output over the samples, as an expression to be minimised.

    Cross-entropy adds ``lse`` with ``lse >= logsumexp(output)`` to the encoding's convex terms; margin adds ``hinge`` and its
    rows.  Minimising makes both tight.
    """
    shape = encoding.network.output_shape
    if len(shape) != 1:
        raise DataError(f"a loss needs one vector of logits a sample; the network's output has shape {shape}")
    known = check_labels(labels, len(encoding.samples), shape[0])
    return _cross_entropy(encoding, known) if loss.name == "cross-entropy" else _margin(encoding, known, loss.margin)


def _cross_entropy(enc: Encoding, labels: Labels) -> LinearExpression:
    lower, upper = (np.asarray(end.values) for end in (enc.output.lower, enc.output.upper))
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise UnboundedError("the logits have no finite bounds, so cross-entropy cannot be modelled; bound the network's input")
    y: NDArray[np.int64] = enc.output.labels.values
    t = _per_sample(enc, "lse", np.logaddexp.reduce(lower, axis=1), np.logaddexp.reduce(upper, axis=1))
    enc.derive(t, lambda points: torch.logsumexp(points[:, y], dim=2))
    enc.convex.append((y, t))
    at_label = Affine.of(np.take_along_axis(y, labels[:, None], axis=1)[:, 0])
    return _mean(enc, Affine.of(t) - at_label)


def _margin(enc: Encoding, labels: Labels, margin: float) -> LinearExpression:
    y = enc.output.labels.values
    samples, classes = y.shape
    most = np.maximum(0.0, enc.output.upper.values.max(axis=1) - enc.output.lower.values.min(axis=1) + margin)
    hinge = _per_sample(enc, "hinge", np.zeros(samples), most)
    enc.derive(hinge, lambda points: _missed(points[:, y], labels, margin))
    others = y[np.arange(classes) != labels[:, None]]
    at_label = np.repeat(np.take_along_axis(y, labels[:, None], axis=1)[:, 0], classes - 1)
    rows = Affine.of(np.repeat(hinge, classes - 1)) - Affine.of(others) + Affine.of(at_label)
    add_rows(enc.model, "hinge_above", rows, ">=", margin, ("hinge_row",), enc.samples)
    return _mean(enc, Affine.of(hinge))


def _missed(logits: torch.Tensor, labels: Labels, margin: float) -> torch.Tensor:
    """The margin loss of logits ``(point, sample, class)``."""
    true = torch.as_tensor(np.arange(logits.shape[2]) == labels[:, None])
    others = torch.where(true, -torch.inf, logits).amax(dim=2)
    return torch.relu(others - (logits * true).sum(dim=2) + margin)


def _per_sample(enc: Encoding, name: str, lower: Array, upper: Array) -> NDArray[np.int64]:
    """The labels of a new variable with one entry a sample."""
    labels: NDArray[np.int64] = add_variables(enc.model, name, lower, upper, {"sample": enc.samples.values}).labels.values
    return labels


def _mean(enc: Encoding, value: Affine) -> LinearExpression:
    return expression(enc.model, (value * (1.0 / len(enc.samples))).total(), (), enc.samples)
