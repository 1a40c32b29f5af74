"""A layer of your own: the absolute value, from its formula to an exact bound, without an edit to mipnet."""

from dataclasses import dataclass

import numpy as np
import torch

import mipnet as mn
from mipnet.bounds.linear_rules import Lines
from mipnet.testing import check_layer


@dataclass(frozen=True, eq=False)
class Abs(mn.Layer):
    """``y = |x|``: an activation, which acts on each element alone, so that a gate may act after it."""

    unitwise = True
    activation = True

    def shape(self, *inputs):
        return inputs[0]

    def forward(self, *inputs):
        return inputs[0].abs()


@mn.interval.register(Abs)
def _(layer, x):
    away = torch.maximum(x.lower, -x.upper).clamp(min=0)
    return mn.Interval(away, torch.maximum(x.lower.abs(), x.upper.abs()))


@mn.lines.register(Abs)
def _(layer, x, choice=None):
    """Above |x| on an interval lies its chord, below it any line through 0 with a slope in [-1, 1]: there is a choice of those."""
    chord = torch.where(x.width > 0, (x.upper.abs() - x.lower.abs()) / x.width, 1.0)
    slope = torch.where(x.upper > -x.lower, 1.0, -1.0) if choice is None else 2 * choice - 1
    slope = torch.where(x.lower * x.upper < 0, slope, chord)
    return Lines(slope, 0 * slope, chord, x.upper.abs() - chord * x.upper)


@mn.encoding(Abs, "big-m")
def _(layer, block, x):
    """``y >= x``, ``y >= -x``, ``y <= x + 2 M (1 - v)``, ``y <= -x + 2 M v`` with M the largest |x|."""
    lower, upper = block.finite()
    most = np.maximum(np.abs(lower), np.abs(upper))
    y = block.variable("", 0.0, most, value=lambda point: np.abs(x.evaluate(point)))
    v = block.variable("sign", 0, 1, binary=True, value=lambda point: (x.evaluate(point) > 0).astype(float))
    block.rows("above", y - x, ">=")
    block.rows("above_negative", y + x, ">=")
    block.rows("below", y - x + v * (2 * most), "<=", 2 * most)
    block.rows("below_negative", y + x - v * (2 * most), "<=")
    return y


if __name__ == "__main__":
    check_layer(Abs(), (4,))
    g = np.random.default_rng(0)
    net = mn.Network.build(
        (3,), [("fc1", mn.Dense(g.normal(size=(4, 3)), g.normal(size=4))), ("abs", Abs()), ("fc2", mn.Dense(g.normal(size=(1, 4))))]
    )
    encoding = mn.encode(net, mn.Box(-np.ones((1, 3)), np.ones((1, 3))))
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    result = mn.solve(encoding)
    print(f"the largest output over [-1, 1]^3 is {result.objective:.6f}, proven to {result.bound:.6f}, verified: {result.verified}")
