"""The importance program of LeNet-5 by hand: scores and all that hangs on them as dense arrays, rows straight into highspy.

It knows that images are fixed, that all layers are gated, that bounds are the published ones, and that no more than a few hundred
variables exist, so that each value can be an array of coefficients over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import highspy
import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mipnet.arrays import Array
from tests.bench.raw import Arrays, Ints, passed

Weights = Mapping[str, tuple[Array, Array]]
Mask = NDArray[np.bool_]


@dataclass
class Value:
    """``constant + coefficient @ x[columns]``, with bounds; the columns are the last axis."""

    constant: Array
    coefficient: Array
    columns: Ints
    lower: Array
    upper: Array

    def with_columns(self, columns: Ints) -> Value:
        """Room for fresh columns behind the others."""
        more = np.zeros((*self.constant.shape, len(columns)))
        return Value(
            self.constant, np.concatenate([self.coefficient, more], axis=-1), np.append(self.columns, columns), self.lower, self.upper
        )


def hand_over(weights: Weights, images: Array, labels: Ints, weight: float, epsilon: float) -> highspy.Highs:
    """Conv, pool, conv, pool, and three dense layers, every one of them but the last with a score for each unit."""
    a = Arrays()
    scores = {
        name: a.variables(np.zeros(1), np.ones(1), np.ones(len(bias), dtype=bool)) for name, (_, bias) in weights.items() if name != "fc3"
    }
    value = pool(a, first(weights["conv1"], images, epsilon, scores["conv1"]))
    value = pool(a, gated_relu(a, convolution(value, *weights["conv2"]), scores["conv2"]))
    value = flat(value)
    for name in ("fc1", "fc2"):
        value = gated_relu(a, dense(value, *weights[name]), scores[name])
    logits = output(a, dense(value, *weights["fc3"]))
    cost = objective(a, scores, logits, labels, weight)
    return passed(a, cost)


def conv(x: Array, kernel: Array, bias: Array | None = None, padding: int = 0) -> Array:
    given = None if bias is None else torch.from_numpy(bias)
    return np.asarray(F.conv2d(torch.from_numpy(x), torch.from_numpy(kernel), given, padding=padding).numpy())


def first(weights: tuple[Array, Array], images: Array, epsilon: float, scores: Ints) -> Value:
    """Behind the first layer a value is its nominal one times its score."""
    kernel, bias = weights
    z, radius = conv(images, kernel, bias, 2), conv(np.full_like(images, epsilon), np.abs(kernel), padding=2)
    h = np.maximum(z, 0)
    coefficient = h[..., None] * np.eye(len(bias))[:, None, None, :]
    return Value(np.zeros_like(z), coefficient, scores, np.maximum(z - radius, 0), np.maximum(z + radius, 0))


def convolution(x: Value, kernel: Array, bias: Array) -> Value:
    samples, many = len(x.constant), len(x.columns)
    stacked = np.moveaxis(x.coefficient, -1, 1).reshape(samples * many, *x.constant.shape[1:])
    through = conv(stacked, kernel)
    coefficient = np.moveaxis(through.reshape(samples, many, *through.shape[1:]), 1, -1)
    centre, radius = conv((x.lower + x.upper) / 2, kernel, bias), conv((x.upper - x.lower) / 2, np.abs(kernel))
    return Value(conv(x.constant, kernel, bias), coefficient, x.columns, centre - radius, centre + radius)


def flat(x: Value) -> Value:
    n = len(x.constant)
    constant, lower, upper = (part.reshape(n, -1) for part in (x.constant, x.lower, x.upper))
    return Value(constant, x.coefficient.reshape(n, -1, len(x.columns)), x.columns, lower, upper)


def dense(x: Value, weight: Array, bias: Array) -> Value:
    centre, radius = (x.lower + x.upper) / 2 @ weight.T + bias, (x.upper - x.lower) / 2 @ np.abs(weight).T
    return Value(x.constant @ weight.T + bias, np.matmul(weight, x.coefficient), x.columns, centre - radius, centre + radius)


def gated_relu(a: Arrays, x: Value, scores: Ints) -> Value:
    """``max(0, z - (1 - s) max(u, 0))``: folded where the sign is known, with rows that keep it."""
    top = np.maximum(x.upper, 0)
    own = np.arange(len(scores)).reshape(-1, *[1] * (x.constant.ndim - 2))
    place = len(x.columns) + np.broadcast_to(own, x.constant.shape)
    x = x.with_columns(scores)
    np.put_along_axis(x.coefficient, place[..., None], top[..., None], axis=-1)
    constant, lower, upper = x.constant - top, x.lower, x.upper
    on, undecided = lower >= 0, (lower < 0) & (upper > 0)
    off = ~on & ~undecided
    endless = np.inf
    for where, least, most in ((on, 0.0, endless), (on, -endless, upper[on]), (off, lower[off], endless), (off, -endless, 0.0)):
        rows(a, x.coefficient[where], x.columns, least - constant[where], most - constant[where])
    h = a.variables(np.zeros(1), upper, undecided)[undecided]
    g = a.variables(np.zeros(1), -lower, undecided)[undecided]
    v = a.variables(np.zeros(1), np.ones(1), undecided, integer=True)[undecided]
    some, low, high = len(h), lower[undecided], upper[undecided]
    left = np.concatenate([x.coefficient[undecided], -np.eye(some), np.eye(some)], axis=1)
    rows(a, left, np.concatenate([x.columns, h, g]), -constant[undecided], -constant[undecided])
    one, free = np.ones(some), np.full(some, -np.inf)
    a.rows(np.stack([h, v], axis=1), np.stack([one, -high], axis=1), free, 0 * one)
    a.rows(np.stack([g, v], axis=1), np.stack([one, -low], axis=1), free, -low)
    opened = Value(constant * on, x.coefficient * on[..., None], x.columns, top, top).with_columns(h)
    opened.coefficient[undecided, len(x.columns) :] = np.eye(some)
    opened.lower = np.maximum(lower, 0)
    return opened


def pool(a: Arrays, x: Value) -> Value:
    """Windows of two by two: the certain winner, with rows that keep it ahead, or a maximum of candidates with a binary each."""
    constant, lower, upper = (windows(part) for part in (x.constant, x.lower, x.upper))
    coefficient = windows(np.moveaxis(x.coefficient, -1, 0))  # (columns, sample, channel, row, col, 4)
    best = lower.argmax(axis=-1)[..., None]
    keep = upper > np.take_along_axis(lower, best, -1)
    np.put_along_axis(keep, best, True, axis=-1)
    single = keep.sum(axis=-1) == 1
    chosen = np.take_along_axis(coefficient, best[None], -1)[..., 0] * single
    won = Value(
        np.take_along_axis(constant, best, -1)[..., 0] * single, np.moveaxis(chosen, 0, -1), x.columns, lower.max(-1), upper.max(-1)
    )
    least, most = (np.where(keep, end, -np.inf).max(-1) for end in (lower, upper))
    p = a.variables(least, most, ~single)[~single]
    won = won.with_columns(p)
    won.coefficient[~single, len(x.columns) :] = np.eye(len(p))
    contest(a, x.columns, p, keep[~single], lower[~single], upper[~single], constant[~single], np.moveaxis(coefficient, 0, -1)[~single])
    dropped = ~keep
    window = np.broadcast_to(np.arange(single.size).reshape(*single.shape, 1), dropped.shape)[dropped]
    wide, narrow = won.coefficient.reshape(single.size, -1)[window], np.moveaxis(coefficient, 0, -1)[dropped]
    wide[:, : narrow.shape[1]] -= narrow
    bound = constant[dropped] - won.constant.reshape(-1)[window]
    some = (wide != 0).any(axis=1)
    rows(a, wide[some], won.columns, bound[some], np.full(int(some.sum()), np.inf))
    return won


def contest(a: Arrays, columns: Ints, p: Ints, keep: Mask, lower: Array, upper: Array, constant: Array, coefficient: Array) -> None:
    """``p >= h_i``, ``p <= h_i + gap (1 - y_i)``, ``sum y = 1``; few windows, one after another."""
    y = a.variables(np.zeros(1), np.ones(1), keep, integer=True)
    for k in range(len(p)):
        mine = keep[k]
        count = int(mine.sum())
        high, low = upper[k][mine], lower[k][mine]
        gap = np.array([np.delete(high, i).max() for i in range(count)]) - low
        a.rows(y[k][mine][None], np.ones((1, count)), np.ones(1), np.ones(1))
        ahead = np.concatenate([np.ones((count, 1)), -coefficient[k][mine]], axis=1)
        rows(a, ahead, np.append(p[k], columns), constant[k][mine], np.full(count, np.inf))
        with_y = np.concatenate([ahead, np.diag(gap)], axis=1)
        rows(a, with_y, np.concatenate([[p[k]], columns, y[k][mine]]), np.full(count, -np.inf), constant[k][mine] + gap)


def windows(array: Array) -> Array:
    two = sliding_window_view(array, (2, 2), axis=(-2, -1))[..., ::2, ::2, :, :]
    return two.reshape(*two.shape[:-2], 4)


def rows(a: Arrays, coefficient: Array, columns: Ints, least: Array, most: Array) -> None:
    """Rows of a dense array, without its zeros."""
    there = coefficient != 0
    a.sizes.append(there.sum(axis=1, dtype=np.int32))
    a.index.append(np.broadcast_to(columns.astype(np.int32), there.shape)[there])
    a.data.append(coefficient[there])
    a.least.append(np.broadcast_to(least, len(there)))
    a.most.append(np.broadcast_to(most, len(there)))


def output(a: Arrays, x: Value) -> Ints:
    low, high = np.array(np.concatenate(a.lower)), np.array(np.concatenate(a.upper))
    up, down = np.maximum(x.coefficient, 0), np.minimum(x.coefficient, 0)
    least = x.constant + up @ low[x.columns] + down @ high[x.columns]
    most = x.constant + up @ high[x.columns] + down @ low[x.columns]
    y = a.variables(least, most, np.ones(least.shape, dtype=bool))
    count = y.size
    left = np.concatenate([x.coefficient.reshape(count, -1), np.full((count, 1), -1.0)], axis=1)
    columns = np.concatenate([np.broadcast_to(x.columns, (count, len(x.columns))), y.reshape(-1, 1)], axis=1)
    there = left != 0
    a.rows(np.where(there, columns, -1), left, -x.constant.reshape(-1), -x.constant.reshape(-1))
    return y


def objective(a: Arrays, scores: Mapping[str, Ints], y: Ints, labels: Ints, weight: float) -> Array:
    """The sum of the largest but one I_l, and the weighted mean of log-sum-exp less the label's logit."""
    one = np.ones(len(scores), dtype=bool)
    ends = np.concatenate(a.lower[-1:]), np.concatenate(a.upper[-1:])
    lse = a.variables(*(np.logaddexp.reduce(end.reshape(y.shape), axis=1) for end in ends), np.ones(len(y), dtype=bool))
    level = a.variables(np.full(1, -2.0), np.full(1, -1.0), one)
    for column, owned in zip(level, scores.values(), strict=True):
        n = len(owned)
        a.rows(np.append(column, owned)[None], np.append(1.0, np.full(n, -1 / n))[None], np.full(1, -2.0), np.full(1, -2.0))
    (q,) = a.variables(np.full(1, -2.0), np.full(1, -1.0), one[:1])
    above = a.variables(np.zeros(1), np.ones(1), one)
    count = len(level)
    columns = np.stack([above, level, np.full(count, q, dtype=np.int32)], axis=1)
    a.rows(columns, np.tile([1.0, -1.0, 1.0], (count, 1)), np.zeros(count), np.full(count, np.inf))
    cost = np.zeros(a.columns)
    cost[q], cost[above] = count - 1, 1.0
    cost[lse] = weight / len(y)
    cost[y[np.arange(len(y)), labels]] = -weight / len(y)
    return cost
