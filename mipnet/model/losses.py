"""Losses in a program: cross-entropy, a convex term that a backend supports or tangents approximate, and the multi-class margin in rows.

For logits y and label c of one sample::

    cross-entropy   log sum_k exp(y_k) - y_c
    margin          max(0, max_{k != c} y_k - y_c + margin)

`add_loss` adds the mean over samples to a model, as a linear expression of new variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from linopy import LinearExpression
from numpy.typing import ArrayLike

from mipnet.arrays import Array, Ints
from mipnet.errors import DataError, UnboundedError, check_choice, suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables, expression
from mipnet.model.encoding import Encoding
from mipnet.network.given_arrays import as_labelled, matched, numbers

LossName = Literal["cross-entropy", "margin"]


@suggest_keywords
@dataclass(frozen=True)
class Loss:
    """A loss by name, ``"cross-entropy"`` or ``"margin"``.

    ``margin`` is the difference between the true logit and every other one from which the margin loss is 0; cross-entropy ignores it.
    """

    name: LossName = "cross-entropy"
    margin: float = 1.0

    def __post_init__(self) -> None:
        check_choice("the loss", self.name, get_args(LossName))

    @expects("logits of shape (sample, class), and the class of each sample as a whole number")
    def values(self, logits: Array, labels: Ints) -> Array:
        """Return the loss per sample, from logits of shape ``(sample, class)`` and labels of shape ``(sample,)``."""
        at_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        if self.name == "cross-entropy":
            entropy: Array = np.logaddexp.reduce(logits, axis=1) - at_label
            return entropy
        others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits).max(axis=1)
        hinge: Array = np.maximum(0.0, others - at_label + self.margin)
        return hinge

    @expects("logits of shape (sample, class), and the class of each sample as a whole number")
    def slopes(self, logits: Array, labels: Ints) -> Array:
        """Return the gradient of each sample's loss with respect to its logits, or a subgradient; shape ``(sample, class)``."""
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


def check_labels(labels: ArrayLike, samples: int, classes: int) -> Ints:
    """Return labels as integers; raises `DataError` unless there is one in ``0 .. classes-1`` per sample."""
    array = numbers(labels, "the array of labels")
    if array.shape != (samples,):
        raise DataError(f"the labels have shape {array.shape}; expected one for each of {samples} samples")
    if array.dtype.kind not in "iu":
        raise DataError(f"the labels have type {array.dtype}; expected integers")
    if array.size and (array.min() < 0 or array.max() >= classes):
        raise DataError(f"the labels run from {array.min()} to {array.max()}; expected 0 to {classes - 1}, one for each output")
    return array.astype(np.int64)


def add_loss(encoding: Encoding, labels: ArrayLike, loss: Loss) -> LinearExpression:
    """Add variables for the loss, and return its mean over the samples as a linear expression for a minimisation.

    Cross-entropy adds variables ``lse`` and convex terms ``lse >= logsumexp(output)``; margin adds variables ``hinge`` and their rows.
    Both hold with equality at an optimum.  Raises `DataError` if the labels do not fit, and `UnboundedError` if cross-entropy has no
    finite bounds.
    """
    shape = encoding.network.output_shape
    if len(shape) != 1:
        raise DataError(f"a loss needs one vector of logits per sample; the network's output has shape {shape}")
    named = as_labelled(labels, "sample")
    if named is not None and named.dims == encoding.samples.dims:
        labels = matched(named, encoding.samples.assign_coords(sample=encoding.samples), "the labels and the samples of the encoding")
    known = check_labels(labels, len(encoding.samples), shape[0])
    return _cross_entropy(encoding, known) if loss.name == "cross-entropy" else _margin(encoding, known, loss.margin)


def _cross_entropy(enc: Encoding, labels: Ints) -> LinearExpression:
    lower, upper = enc.output_range
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise UnboundedError("the logits have no finite bounds, so cross-entropy cannot be modelled; bound the network's input")
    y: Ints = enc.output_labels
    t = _per_sample(enc, "lse", np.logaddexp.reduce(lower, axis=1), np.logaddexp.reduce(upper, axis=1))
    enc.derive(t, lambda points: torch.logsumexp(points[:, y], dim=2))
    enc.convex.append((y, t))
    at_label = Affine.of(np.take_along_axis(y, labels[:, None], axis=1)[:, 0])
    return _mean(enc, Affine.of(t) - at_label)


def _margin(enc: Encoding, labels: Ints, margin: float) -> LinearExpression:
    y, (lower, upper) = enc.output_labels, enc.output_range
    samples, classes = y.shape
    upper = np.maximum(0.0, upper.max(axis=1) - lower.min(axis=1) + margin)
    hinge = _per_sample(enc, "hinge", np.zeros(samples), upper)
    enc.derive(hinge, lambda points: _margin_loss(points[:, y], labels, margin))
    others = y[np.arange(classes) != labels[:, None]]
    at_label = np.repeat(np.take_along_axis(y, labels[:, None], axis=1)[:, 0], classes - 1)
    rows = Affine.of(np.repeat(hinge, classes - 1)) - Affine.of(others) + Affine.of(at_label)
    add_rows(enc.model, "hinge_above", rows, ">=", margin, ("hinge_row",), enc.samples)
    return _mean(enc, Affine.of(hinge))


def _margin_loss(logits: torch.Tensor, labels: Ints, margin: float) -> torch.Tensor:
    """Return the margin loss, shape ``(point, sample)``, of logits of shape ``(point, sample, class)``."""
    true = torch.as_tensor(np.arange(logits.shape[2]) == labels[:, None])
    others = torch.where(true, -torch.inf, logits).amax(dim=2)
    return torch.relu(others - (logits * true).sum(dim=2) + margin)


def _per_sample(enc: Encoding, name: str, lower: Array, upper: Array) -> Ints:
    """Add one variable per sample, and return the labels."""
    labels: Ints = add_variables(enc.model, name, lower, upper, {str(enc.samples.dims[0]): enc.samples.values}).labels.values
    return labels


def _mean(enc: Encoding, value: Affine) -> LinearExpression:
    return expression(enc.model, (value * (1.0 / len(enc.samples))).total(), (), enc.samples)
