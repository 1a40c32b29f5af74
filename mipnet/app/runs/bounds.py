"""`mipnet bounds`: bounds of a file's network around its images, as data and as a table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.inputs import read_data, read_network
from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Method
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError
from mipnet.network.gates import find_gates
from mipnet.network.sets import Box, LInf, Samples
from mipnet.solving.tightening import TighteningRun, tighten

METHODS = ("interval", "crown", "alpha", "lp", "mip")
"""From the quickest to the tightest."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """Bounds, what they are over in words, and how long they took."""

    bounds: Bounds
    over: str
    seconds: float

    def __str__(self) -> str:
        return f"Bounds by {self.bounds.method} over {self.over}, in {self.seconds:.2f} s"


def measure(
    spec: Spec,
    method: Method | Literal["lp", "mip"],
    *,
    epsilon: float | None = None,
    gated: bool | None = None,
    time_limit: float = 60.0,
    tell: Callable[[str], None] | None = None,
) -> Bounded:
    """Bounds by a method over the file's images, or over all that is within ``epsilon`` of one.

    The bounds of mere images tell something of gates alone, so these are in if there is no epsilon, and out if there is one, unless
    ``gated`` says otherwise.
    """
    if method not in METHODS:
        raise InputError(f"the method is `{method}`; expected one of {', '.join(METHODS)}")
    network = read_network(spec)
    with spec.blame("gates"):
        gates = find_gates(network, spec.gates.layers) if gated or (gated is None and epsilon is None) else ()
    with spec.blame("data"):
        images, _, _ = read_data(spec, network)
    region, over = around(images.images, epsilon)
    began = time.perf_counter()
    if method == "lp" or method == "mip":
        bounds = tighten(
            network, region, gates, method=method, backend=spec.solve.backend, time_limit=time_limit, run=TighteningRun(on_layer=tell)
        )
    else:
        bounds = propagate(network, region, gates, method=method)
    scores = f", any scores of {', '.join(gate.name for gate in gates)}" if gates else ""
    return Bounded(bounds, over + scores, time.perf_counter() - began)


def around(images: Array, epsilon: float | None) -> tuple[Box, str]:
    """The images, or a ball around each, cut to [0, 1] if all pixels lie in it; and that in words."""
    count = f"{len(images):,} image{'s' if len(images) > 1 else ''}"
    if epsilon is None:
        return Samples(images), count
    if images.min() >= 0 and images.max() <= 1:
        return LInf(images, epsilon, lower=0, upper=1), f"{epsilon:g} around {count}, cut to [0, 1]"
    return LInf(images, epsilon), f"{epsilon:g} around {count}"


def to_record(found: Bounded) -> dict[str, Any]:
    """The widths and the unstable units of each layer as plain data."""
    bounds, layers = found.bounds, found.bounds.layers()
    return {
        "method": bounds.method,
        "over": found.over,
        "samples": bounds.region.samples,
        "gates": [gate.name for gate in bounds.gates],
        "runtime_s": found.seconds,
        "unstable": sum(layer.unstable or 0 for layer in layers),
        "layers": [asdict(layer) for layer in layers],
    }
