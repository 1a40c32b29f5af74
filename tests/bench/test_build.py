"""Build and hand-over to HiGHS: mipnet against arrays written by hand."""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise

import highspy
import numpy as np
import pytest

import mipnet as mn
from mipnet.backend import Program, Session, get_backend
from mipnet.backend.rewrites import rewrite
from mipnet.model.to_program import from_model
from tests.bench import raw_lenet
from tests.bench.measure import cpu_times, peak, peak_apart
from tests.bench.raw import hand_over
from tests.bench.registry import Bench, Row, Section
from tests.nets import conv, dense

SIZE = {"rows": "", "columns": "", "nonzeros": ""}
BY_HAND = SIZE | {"mipnet": "s", "by hand": "s", "time": "ratio", "peak memory": "ratio"}
HAND_OVER = BY_HAND | {"hand-over alone": "s"}
SOLVERS = SIZE | {"HiGHS": "s", "SCIP": "s", "SCIP / HiGHS": "ratio"}
SIZES = (784, 300, 100, 10)


def network() -> mn.Network:
    g = np.random.default_rng(0)
    layers: list[tuple[str, mn.Layer]] = []
    for i, (before, after) in enumerate(pairwise(SIZES), start=1):
        layers += [(f"fc{i}", dense(g, after, before)), (f"relu{i}", mn.ReLU())]
    return mn.Network.build(SIZES[:1], layers[:-1])


def boxes(samples: int) -> mn.Box:
    return mn.LInf(np.random.default_rng(1).uniform(size=(samples, SIZES[0])), 0.1, lower=0, upper=1)


def by_mipnet(net: mn.Network, region: mn.Box) -> Session:
    return get_backend("highs").open(from_model(mn.encode(net, region, bounds="interval").model))


def by_hand(net: mn.Network, region: mn.Box) -> highspy.Highs:
    owned = (n.layer.weights() for n in net.nodes if isinstance(n.layer, mn.Dense))
    return hand_over([(w["weight"].numpy(), w["bias"].numpy()) for w in owned], region.lower, region.upper)


def routes(samples: int) -> dict[str, partial[object]]:
    net, region = network(), boxes(samples)
    return {"mipnet": partial(by_mipnet, net, region), "hand": partial(by_hand, net, region)}


def lenet_routes(images: int) -> dict[str, partial[object]]:
    net, pixels = lenet5(), np.random.default_rng(1).uniform(size=(images, 1, 28, 28))
    task = mn.Importance(net, pixels, np.arange(images) % 10)
    weights = {n.name: (w["weight"].numpy(), w["bias"].numpy()) for n in net.nodes if (w := n.layer.weights())}
    hand = partial(raw_lenet.hand_over, weights, pixels, np.arange(images) % 10, task.objective.weight, mn.PaperBounds().epsilon)
    return {"mipnet": partial(opened, task), "hand": hand}


def importance_program(task: mn.Importance) -> Program:
    return rewrite(from_model(task.pose().model), get_backend("highs").features).program


def opened(task: mn.Importance) -> Session:
    return get_backend("highs").open(importance_program(task))


ROUTES = {"mlp": routes, "lenet": lenet_routes}


def wake_up(route: str) -> None:
    """Imports and first calls are not what is measured."""
    g = np.random.default_rng(0)
    net = mn.Network.build((3,), [("fc1", dense(g, 4, 3)), ("relu1", mn.ReLU()), ("fc2", dense(g, 2, 4))])
    {"mipnet": by_mipnet, "hand": by_hand}[route](net, mn.Box(-np.ones((1, 3)), np.ones((1, 3))))


def mlp(samples: int) -> Row:
    ours, theirs = routes(samples).values()
    program = from_model(mn.encode(network(), boxes(samples), bounds="interval").model)
    check_same(program, by_hand(network(), boxes(samples)))
    mine, raw = cpu_times(ours, theirs)
    return {**size(program), "mipnet": mine, "by hand": raw, "time": mine / raw, "peak memory": memory("mlp", samples)}


def memory(kind: str, samples: int) -> float | None:
    """Peak memory of mipnet's way as a multiple of the other."""
    mine, raw = (peak_apart("tests.bench.test_build", kind, route, str(samples)) for route in ("mipnet", "hand"))
    return mine / raw if mine and raw else None


def check_same(program: Program, highs: highspy.Highs) -> None:
    """The two routes write the same program, up to the order of rows and columns."""
    assert (highs.getNumRow(), highs.getNumCol(), highs.getNumNz()) == tuple(size(program).values())
    lp = highs.getLp()
    assert np.allclose(np.sort(lp.col_lower_), np.sort(program.lower))
    assert np.allclose(np.sort(lp.col_upper_), np.sort(program.upper))
    assert np.allclose(np.sort(lp.row_lower_), np.sort(program.rows.lower))
    assert np.allclose(np.sort(lp.row_upper_), np.sort(program.rows.upper))
    assert np.allclose(np.sort(lp.a_matrix_.value_), np.sort(program.rows.matrix.data))
    assert np.allclose(np.sort(lp.col_cost_), np.sort(program.cost))


def size(program: Program) -> dict[str, float]:
    return {key: program.size[key] for key in ("rows", "columns", "nonzeros")}


def lenet5() -> mn.Network:
    g = np.random.default_rng(0)
    pool = mn.MaxPool2d(mn.Window((2, 2), (2, 2)))
    convolutions = [("conv1", conv(g, 6, 1, (5, 5), padding=(2, 2, 2, 2))), ("relu1", mn.ReLU()), ("pool1", pool)]
    convolutions += [("conv2", conv(g, 16, 6, (5, 5))), ("relu2", mn.ReLU()), ("pool2", pool), ("flatten", mn.Reshape((400,)))]
    head = [("fc1", dense(g, 120, 400)), ("relu3", mn.ReLU()), ("fc2", dense(g, 84, 120)), ("relu4", mn.ReLU())]
    return mn.Network.build((1, 28, 28), [*convolutions, *head, ("fc3", dense(g, 10, 84))])


def lenet(images: int) -> Row:
    """The importance program; beside it stands the hand-over of the finished arrays alone."""
    ours, theirs = lenet_routes(images).values()
    (task,) = ours.args
    finished = importance_program(task)
    check_same(finished, theirs())
    mine, raw, alone = cpu_times(ours, theirs, lambda: get_backend("highs").open(finished))
    times = {"mipnet": mine, "by hand": raw, "time": mine / raw, "peak memory": memory("lenet", images)}
    return {**size(finished), **times, "hand-over alone": alone}


def handed(samples: int) -> Row:
    program = from_model(mn.encode(network(), boxes(samples), bounds="interval").model)
    highs, scip = cpu_times(*(partial(open_and_close, name, program) for name in ("highs", "scip")))
    return {**size(program), "HiGHS": highs, "SCIP": scip, "SCIP / HiGHS": scip / highs}


def open_and_close(backend: str, program: Program) -> None:
    get_backend(backend).open(program).close()


DENSE = Section(
    "Build and hand-over: 784-300-100-10 over boxes",
    """
The time from weights and input set to a program inside HiGHS: bounds, variables, rows, and passing the program to HiGHS. The network
has random weights, and each sample has a box of radius 0.1. *By hand* is a script (`tests/bench/raw.py`) that writes the same rows for
this one architecture into numpy arrays and passes them to highspy; it supports no labels, no gates and no other layer. Both use
interval bounds, so that the rows are the same. Peak memory is the largest increase of memory in a new process.
""",
    tuple(Bench(f"{n} {'sample' if n == 1 else 'samples'}", partial(mlp, n), BY_HAND) for n in (1, 10, 100)),
)
LENET = Section(
    "Build and hand-over: importance program of LeNet-5",
    """
The time for ten images, all gates and the published bounds: forward pass, bounds, variables, rows, objective, and passing the program
to HiGHS. *By hand* is a script (`tests/bench/raw_lenet.py`) that writes the same rows for this one network. *Hand-over alone* is the
time to pass the finished arrays to HiGHS; it is a lower limit for any way of building.
""",
    (Bench("10 images", partial(lenet, 10), HAND_OVER),),
)


HANDED = Section(
    "Hand-over of a finished program to HiGHS and to SCIP",
    """
The time to pass the program of 784-300-100-10 over boxes of radius 0.1 from its arrays to an open session. HiGHS takes whole arrays.
SCIP takes variables and rows one by one; the rows are passed by SCIP's C functions.
""",
    (Bench("10 samples", partial(handed, 10), SOLVERS),),
)


@pytest.mark.bench
@pytest.mark.parametrize(
    ("section", "bench"), [(s, b) for s in (DENSE, LENET, HANDED) for b in s.benches], ids=lambda item: getattr(item, "name", "")
)
def test_build(section: Section, bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    assert set(found) == set(bench.unit)
    measured.setdefault(section, {})[bench.name] = found
    print(section.title, bench.name, found)


if __name__ == "__main__":
    kind, route, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    wake_up(route)
    print(peak(ROUTES[kind](samples)[route]))
