"""The target of a counterfactual question, as clauses about the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mipnet.arrays import Array
from mipnet.errors import InputError, UnsupportedError, shown
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.verification.robustness import class_differences

Target = int | Sequence[int] | tuple[float | None, float | None] | Mapping[int, tuple[float | None, float | None]]
"""A class, or several of which one is enough; an interval of the only output; or intervals of several outputs, by their number."""


def target_clauses(network: Network, target: Any, margin: float) -> tuple[Clause, ...]:
    """Return one clause per class, or one for all intervals, which holds where the target is reached.

    Class t is reached where ``y_t - y_k >= margin`` for all other classes k.  Raises `InputError` for a target that does not fit.
    """
    count = size(network.output_shape)
    one = count == 1
    if isinstance(target, Mapping):
        return (_intervals(network, target),)
    if one:
        if not isinstance(target, tuple | list) or len(target) != 2:
            raise InputError(f"the target is {shown(target)}; the network has one output: expected an interval (lower, upper)")
        return (_intervals(network, {0: target}),)
    given = [target] if np.ndim(target) == 0 else list(target)
    if not given or any(isinstance(c, bool) or not isinstance(c, int | np.integer) or not 0 <= c < count for c in given):
        raise InputError(
            f"the target is {shown(target)}; expected a class from 0 to {count - 1}, a list of such, or {{output: (low, high)}}"
        )
    network.check_classes()
    others = [[k for k in range(count) if k != c] for c in given]
    return tuple(Clause(class_differences(count, int(c), rest), np.full(count - 1, -margin)) for c, rest in zip(given, others, strict=True))


def _intervals(network: Network, target: Mapping[Any, Any]) -> Clause:
    if network.softmax is not None:
        raise UnsupportedError(
            f"the target is an interval, and the network ends in a {network.softmax.kind}; expected a class, or `network.without_softmax()`"
            " and intervals of its logits"
        )
    count, rows, right = size(network.output_shape), list[Array](), list[float]()
    for output, pair in target.items():
        if isinstance(output, bool) or not isinstance(output, int | np.integer) or not 0 <= output < count:
            raise InputError(f"the target has the output {shown(output)}; expected a number from 0 to {count - 1}")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"the target of output {output} is {shown(pair)}; expected an interval (lower, upper), of which one may be None"
            )
        low, high = (end if each is None else float(each) for each, end in zip(pair, (-np.inf, np.inf), strict=True))
        if not low <= high or low == np.inf or high == -np.inf:
            raise InputError(f"the target of output {output} is ({low:g}, {high:g}); expected lower <= upper")
        for sign, end in ((1.0, high), (-1.0, low)):
            if np.isfinite(end):
                rows.append(sign * np.eye(count)[output])
                right.append(sign * end)
    if not rows:
        raise InputError("the target bounds no output; expected an interval with at least one end")
    return Clause(np.array(rows), np.array(right))
