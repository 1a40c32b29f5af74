"""The oracle that confirms a counterexample: the original network in its own number type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mipnet.arrays import Array
from mipnet.errors import suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.properties import Case
from mipnet.readers.files import ONNX_SUFFIXES, suffix_of

REGION_SLACK_ROUNDINGS = 4.0
"""How far an input may lie outside of the set if the oracle's numbers cannot express it, in units of their rounding error."""


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Oracle:
    """A function ``run`` from inputs ``(n, *input_shape)`` of type ``dtype`` to outputs ``(n, *output_shape)``.

    At most ``at_once`` inputs are given to it in one call.
    """

    name: str
    run: Callable[[Array], Array]
    dtype: type[np.floating] = np.float64
    at_once: int = 64

    @staticmethod
    @suggest_keywords
    def of(network: Network) -> Oracle:
        """Return the oracle that runs `Network.outputs` in torch, in float64."""
        return Oracle("torch", network.outputs, at_once=samples_at_once(network))

    @staticmethod
    @suggest_keywords
    def of_file(path: str | Path, network: Network, deadline: Deadline = NO_DEADLINE) -> Oracle:
        """Return an oracle that runs an .onnx file by onnxruntime, in the file's number type.

        For other files, and if onnxruntime is missing or cannot run the file on a sample, it is that of `of`.  Raises
        `TimeLimitReached` after the deadline.
        """
        if suffix_of(path) not in ONNX_SUFFIXES:
            return Oracle.of(network)
        from mipnet.readers.onnx_session import open_session

        deadline.check(f"open `{path}` in onnxruntime")
        try:
            session = open_session(path)
            runs = session.run(np.zeros((1, *network.input_shape))).size == size(network.output_shape)
        except Exception:  # onnxruntime has no common class of errors
            return Oracle.of(network)
        if not runs:
            return Oracle.of(network)
        return Oracle("onnxruntime", session.run, session.dtype, samples_at_once(network))

    @suggest_keywords
    def first(self, case: Case, x: Array, deadline: Deadline = NO_DEADLINE) -> tuple[Array, Array] | None:
        """Return the first input that satisfies the case according to the oracle, and its output; None if none does, or none in time."""
        slack = REGION_SLACK_ROUNDINGS * float(np.finfo(self.dtype).eps) * np.maximum(np.abs(case.region.lower), np.abs(case.region.upper))
        for start in range(0, len(x), self.at_once):
            if deadline.passed:
                break
            inputs = self.rounded(case, x[start : start + self.at_once])
            outputs = np.asarray(self.run(inputs), dtype=np.float64)
            exact = inputs.astype(np.float64)
            good = case.contains(exact, slack) & (case.excess(outputs.reshape(len(inputs), -1)) <= 0)
            if good.any():
                return exact[good][0], outputs[good][0]
        return None

    @suggest_keywords
    @expects("a case, and inputs of shape (n, *input shape)")
    def rounded(self, case: Case, x: Array) -> Array:
        """Return the inputs in the oracle's numbers, inside of the box wherever a number of that type lies in it."""
        low, high = (end.reshape(x.shape[1:]) for end in (case.region.lower, case.region.upper))
        below, above = low.astype(self.dtype), high.astype(self.dtype)
        below = np.where(below.astype(np.float64) < low, np.nextafter(below, self.dtype(np.inf)), below)
        above = np.where(above.astype(np.float64) > high, np.nextafter(above, self.dtype(-np.inf)), above)
        if case.open_ends is not None:
            open_low, open_high = (each.reshape(low.shape) for each in case.open_ends)
            below = np.where(open_low & (below.astype(np.float64) <= low), np.nextafter(below, self.dtype(np.inf)), below)
            above = np.where(open_high & (above.astype(np.float64) >= high), np.nextafter(above, self.dtype(-np.inf)), above)
        near = x.astype(self.dtype)
        if case.region.ball is not None:  # closer to the centre by the largest rounding error
            ball = replace(case.region.ball, centre=case.region.ball.centre.reshape((1, *x.shape[1:])))
            lost = 2 * ball.distance(near.astype(np.float64) - x + ball.centre).max()
            near = replace(ball, radius=max(ball.radius - lost, ball.radius / 2)).nearest(x).astype(self.dtype)
        return np.where(below <= above, np.clip(near, below, np.maximum(below, above)), near).astype(self.dtype)
