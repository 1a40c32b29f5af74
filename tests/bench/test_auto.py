"""What `auto` rests on: pairs against big-M by the number of unstable activations, and beside the binaries of max pooling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pytest

import mipnet as mn
from tests.bench.registry import Bench, Row, Section
from tests.bench.test_formulations import questions
from tests.bench.vnncomp import ROOT, mnist_fc
from tests.nets import conv, dense

SECONDS = 40.0
Posed = tuple[mn.Network, mn.Box, int, int]
"""A network, its input set, and two outputs: how far can the second get ahead of the first?"""


def digits(radius: float) -> Iterator[Posed]:
    network, asked = questions()
    for image, label, rival in asked:
        yield network, mn.LInf(image, radius, lower=0, upper=1), label, rival


def mnist(radius: float) -> Iterator[Posed]:
    network = mnist_fc(2)
    for image in mn.load("mnist", ROOT, split="test", shape=(784,)).images[:2]:
        *_, rival, label = np.argsort(network.forward(image[None])[0])
        yield network, mn.LInf(image[None], radius, lower=0, upper=1), int(label), int(rival)


def pooled(kernel: int, *, before: bool) -> Iterator[Posed]:
    """Random networks: convolution, ReLU and max pooling (or pooling ``before`` the ReLU), two dense layers."""
    for seed in (0, 2, 3):
        g = np.random.default_rng(seed)
        pair = [("relu1", mn.ReLU()), ("pool1", mn.MaxPool2d(mn.Window((kernel, kernel), (2, 2))))]
        size = 3 * ((6 - kernel) // 2 + 1) ** 2
        first = conv(g, 3, 1, (3, 3), padding=(1, 1, 1, 1))
        tail = [("flat", mn.Reshape((size,))), ("fc1", dense(g, 8, size)), ("relu2", mn.ReLU()), ("fc2", dense(g, 3, 8))]
        network = mn.Network.build((1, 6, 6), [("conv1", first), *(reversed(pair) if before else pair), *tail])
        yield network, mn.LInf(g.uniform(0.2, 0.8, (1, 1, 6, 6)), 0.1), 1, 0


def asked(posed: Posed, formulation: Mapping[str, str | int]) -> mn.Encoding:
    network, region, label, rival = posed
    encoding = mn.encode(network, region, formulation=formulation)
    output = encoding.output.isel(sample=0, drop=True)
    ahead = output.isel({output.dims[0]: rival}, drop=True) - output.isel({output.dims[0]: label}, drop=True)
    encoding.model.add_objective(ahead, sense="max")
    return encoding


def row(which: Callable[[], Iterator[Posed]], ways: Mapping[str, tuple[str, Mapping[str, str | int]]]) -> Row:
    """CPU seconds of each way, how many solves ended within the gap, and the sum of the gaps that are left."""
    found: dict[str, float | None] = {}
    for name, (backend, formulation) in ways.items():
        encodings = [asked(posed, formulation) for posed in which()]
        if not found:
            found["unstable"] = max(sum(e.bounds.unstable().values()) for e in encodings)
            found["solves"] = len(encodings)
        began = time.process_time()
        results = [mn.solve(e, backend, time_limit=SECONDS) for e in encodings]
        found[name] = time.process_time() - began
        found[f"{name} open"] = sum(r.status is not mn.Status.OPTIMAL for r in results)
        found[f"{name} left"] = float(sum(abs(r.bound - r.objective) for r in results if r.objective is not None))
    return found


PAIRS = {
    f"{shown} {name}": (backend, {"relu": name}) for backend, shown in (("highs", "HiGHS"), ("scip", "SCIP")) for name in ("big-m", "sos1")
}
POOLS = {
    f"{shown} {relu}, {pool}": (backend, {"relu": relu, "maxpool2d": pool})
    for backend, shown, relu in (("highs", "HiGHS", "big-m"), ("scip", "SCIP", "big-m"), ("scip", "SCIP", "sos1"))
    for pool in ("big-m", "indicator", "hull")
}


def units(ways: Mapping[str, object], *, left: bool) -> dict[str, str]:
    each = [(name, "s") for name in ways]
    more = [(f"{name} {what}", "") for name in ways for what in (("open", "left") if left else ("open",))]
    return {"unstable": "", "solves": "", **dict(each), **dict(more)}


UNSTABLE = Section(
    "Pairs against big-M, by the number of unstable activations",
    f"""
The objective is the largest margin: the output of the second-best class minus that of the right class. *digits* is the network of
`examples/digits.yaml` with four test images, *mnist_fc* the network of VNN-COMP with two hidden layers of 256 units with two test
images; the number is the radius. *unstable* is the largest number of unstable activations among the images. Times are sums of CPU
seconds. *open* counts the solves that did not reach a gap of 1e-4 within {SECONDS:.0f} seconds of wall-clock time, and *left* is the
sum of bound minus objective. For HiGHS, both formulations give the same program except for the order of columns and rows, so the
difference there is random. `auto` uses pairs up to 80 unstable activations.
""",
    tuple(
        Bench(name, partial(row, which, PAIRS), units(PAIRS, left=True))
        for name, which in (
            ("digits, 0.12", partial(digits, 0.12)),
            ("digits, 0.2", partial(digits, 0.2)),
            ("mnist_fc, 0.02", partial(mnist, 0.02)),
            ("mnist_fc, 0.03", partial(mnist, 0.03)),
        )
    ),
)
WINDOWS = Section(
    "Formulations of max pooling",
    f"""
Three random networks per line: a convolution with three channels of 6 x 6, max pooling with stride 2, dense layers of 8 and 3 units,
and a ball of radius 0.1. A column names the solver, the formulation of ReLU and that of max pooling. Times are sums of CPU seconds.
*Open* counts the solves that did not reach a gap of 1e-4 within {SECONDS:.0f} seconds of wall-clock time.
""",
    tuple(
        Bench(name, partial(row, which, POOLS), units(POOLS, left=False))
        for name, which in (
            ("2 x 2 after ReLU", partial(pooled, 2, before=False)),
            ("2 x 2 before ReLU", partial(pooled, 2, before=True)),
            ("3 x 3 after ReLU", partial(pooled, 3, before=False)),
        )
    ),
)
SECTIONS = (UNSTABLE, WINDOWS)


@pytest.mark.bench
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("section", "bench"), [(s, b) for s in SECTIONS for b in s.benches], ids=lambda value: getattr(value, "name", ""))
def test_what_auto_rests_on(section: Section, bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    measured.setdefault(section, {})[bench.name] = found
    assert all(value is not None for value in found.values())
