"""The run of `mipnet bounds`: bounds of a file's network over its images, or over balls around them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.inputs import read_data, read_network
from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Method
from mipnet.bounds.propagation import propagate, propagate_until_ctrl_c
from mipnet.errors import InputError, check_choice
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.gates import Gate, find_gates
from mipnet.network.graph import Network
from mipnet.network.sets import Box, LInf, Samples
from mipnet.solving.tightening import TighteningRun, tighten

BOUND_METHODS = ("interval", "crown", "alpha", "lp", "mip")
"""The methods, from the fastest to the tightest."""


@dataclass(frozen=True, eq=False)
class BoundsRun:
    """Bounds, the input set in words, and the seconds that they took."""

    bounds: Bounds
    over: str
    seconds: float
    interrupted: bool = False

    def __str__(self) -> str:
        ended = ": interrupted, this is what was proven by then" if self.interrupted else ""
        if self.bounds.stopped and not self.interrupted:
            ended = ": stopped at the time limit, some are looser than they could be"
        return f"Bounds by {self.bounds.method} over {self.over}, in {self.seconds:.2f} s{ended}"


def compute_bounds(
    file: SolveFile,
    method: Method | Literal["lp", "mip"],
    *,
    epsilon: float | None = None,
    gated: bool | None = None,
    time_limit: TimeLimit = None,
    on_layer: Callable[[str], None] | None = None,
) -> BoundsRun:
    """Compute bounds by a method over the file's images, or over all inputs within ``epsilon`` of an image.

    ``gated`` says whether the bounds hold for every score of the gates.  If it is None, they do exactly if there is no ``epsilon``:
    without gates, the bounds of single images are the values themselves.  ``time_limit`` is in seconds of the whole call, reading
    included, None for no limit; at its end, `Bounds.stopped` is True.  ``on_layer`` takes a line per layer of `lp` and `mip`.
    Ctrl-C ends the method: the bounds proven by then are returned, layer by layer, and those by intervals of the other layers.
    """
    deadline = Deadline.after(time_limit)
    check_choice("the method", method, BOUND_METHODS)
    if epsilon is not None and not 0 <= epsilon < math.inf:
        raise InputError(f"epsilon is {epsilon:g}; expected a finite number of at least 0")
    network = read_network(file, deadline)
    with file.blame("gates"):
        gates = find_gates(network, file.gates.layers) if gated or (gated is None and epsilon is None) else ()
    with file.blame("data"):
        images = read_data(file, network, deadline).images.images
    region, over = input_set(images, epsilon)
    began, interrupted = time.perf_counter(), False
    try:
        bounds = _bounds(file, network, region, gates, method, deadline, on_layer)
    except KeyboardInterrupt:  # before there are any; those by intervals take some forward passes
        bounds, interrupted = propagate(network, region, gates, method="interval"), True
    scores = f", any scores of {', '.join(gate.name for gate in gates)}" if gates else ""
    logits = "" if network.softmax is None else f"; those of the output are of the logits, before the {network.softmax.kind}"
    return BoundsRun(bounds, over + scores + logits, time.perf_counter() - began, interrupted or bounds.interrupted)


def _bounds(
    file: SolveFile,
    network: Network,
    region: Box,
    gates: tuple[Gate, ...],
    method: Method | Literal["lp", "mip"],
    deadline: Deadline,
    on_layer: Callable[[str], None] | None,
) -> Bounds:
    if method == "lp" or method == "mip":
        run = TighteningRun(on_layer=on_layer)
        return tighten(network, region, gates, method=method, backend=file.solve.backend, time_limit=deadline, run=run)
    return propagate_until_ctrl_c(network, region, gates, method, deadline)


def input_set(images: Array, epsilon: float | None) -> tuple[Box, str]:
    """Return the images, or a ball around each, clipped to [0, 1] if all pixels lie in it; and the same in words."""
    count = f"{len(images):,} image{'s' if len(images) > 1 else ''}"
    if epsilon is None:
        return Samples(images), count
    if images.min() >= 0 and images.max() <= 1:
        return LInf(images, epsilon, lower=0, upper=1), f"{epsilon:g} around {count}, cut to [0, 1]"
    return LInf(images, epsilon), f"{epsilon:g} around {count}"


def bounds_record(found: BoundsRun) -> dict[str, Any]:
    """Return the widths and the unstable units of each layer as plain data."""
    bounds, layers = found.bounds, found.bounds.layers()
    return {
        "method": bounds.method,
        "over": found.over,
        "samples": bounds.region.samples,
        "gates": [gate.name for gate in bounds.gates],
        "runtime_s": found.seconds,
        "interrupted": found.interrupted,
        "stopped": bounds.stopped,
        "unstable": sum(layer.unstable or 0 for layer in layers),
        "layers": [asdict(layer) for layer in layers],
        "warnings": list(bounds.warnings),
    }
