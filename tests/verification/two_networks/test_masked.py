"""After pruning: does the masked network name the same class all around an image?

The oracles: torch with the masks in hooks, and numbers worked out by hand.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.solve import run_importance
from mipnet.arrays import Array
from mipnet.backend import Event
from mipnet.errors import MipnetError
from mipnet.readers.data import load
from mipnet.readers.files import build_module
from mipnet.verification.sign_branching import SignBranching
from mipnet.verification.two_networks.masked_agreement import BallAgreements, ImageBalls, agree_around, masked_network

BACKENDS = ("highs", "scip")
DIGITS = Path(__file__).parents[3] / "examples" / "digits.yaml"


class Twice(nn.Module):
    """A layer used twice, a layer without an activation after it, a residual sum, and an activation that is not 0 at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.both, self.thin, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 3)
        self.act1, self.act2, self.act3 = nn.Hardtanh(0.2, 1.5), nn.ReLU(), nn.LeakyReLU(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act1(self.one(x))
        return self.last(self.thin(self.act3(self.both(self.act2(self.both(h)) + h))))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 7),
        nn.Hardtanh(0.1, 2.0),
        nn.Linear(7, 3),
    )


def drawn(gates: tuple[mn.Gate, ...], g: np.random.Generator) -> xr.Dataset:
    return xr.Dataset({gate.name: (gate.dim, g.uniform(size=gate.units) < 0.6) for gate in gates})


def hooked(module: nn.Module, x: torch.Tensor, where: dict[str, str], masks: xr.Dataset) -> Array:
    """The module's output in torch, with the outputs of the named modules multiplied by the masks."""
    handles = []
    for name, gate in where.items():
        kept = torch.tensor(masks[gate].values, dtype=torch.float64)
        handles.append(
            module.get_submodule(name).register_forward_hook(
                lambda _, __, y, kept=kept: y * kept.reshape(1, -1, *[1] * (y.ndim - 2)),
            )
        )
    with torch.no_grad():
        out: Array = module(x).numpy()
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "shape", "sites"),
    [
        (convolutional, (1, 8, 8), {"2": 0, "5": 1, "10": 2}),
        (Twice, (6,), {"act1": 0, "act2": 1, "act3": 1, "thin": 2}),
    ],
)
def test_the_masked_network_is_that_of_torch(make, shape, sites, seed):
    torch.manual_seed(seed)
    module = make().double().train()
    x = torch.randn(50, *shape, dtype=torch.float64)
    module(x)  # batch norms get statistics that are not 0 and 1
    module.eval()
    network = mn.from_torch(module, x[:1])
    gates = mn.find_gates(network)
    masks = drawn(gates, np.random.default_rng(seed))
    small = masked_network(network, gates, masks)
    truth = hooked(module, x, {name: gates[k].name for name, k in sites.items()}, masks)
    assert np.abs(truth - network.forward(x)).max() > 1e-3
    assert np.abs(small.forward(x) - truth).max() <= 1e-10
    nothing = masked_network(network, gates, masks.map(np.ones_like))
    assert [node.layer for node in nothing.nodes] == [node.layer for node in network.nodes]


def kink() -> mn.Network:
    """``y = (h0 + 10 h1, 2 - h0)`` with ``h = relu(x, x - 0.5)``: class 0 from x = 7/12 on, and without h1 from x = 1 on."""
    layers = [
        ("fc1", mn.Dense(np.array([[1.0], [1.0]]), np.array([0.0, -0.5]))),
        ("relu1", mn.ReLU()),
        ("fc2", mn.Dense(np.array([[1.0, 10.0], [-1.0, 0.0]]), np.array([0.0, 2.0]))),
    ]
    return mn.Network.build((1,), layers)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("radius", "clip", "kept", "result"),
    [
        (0.3, None, [True, True], "proven"),
        (0.1, None, [True, False], "proven"),
        (0.18, None, [True, False], "proven"),
        (0.3, (0.0, 0.58), [True, False], "proven"),
        (0.3, None, [True, False], "refuted"),
        (0.19, (0.0, 1.0), [True, False], "refuted"),
    ],
)
def test_the_class_changes_where_it_was_worked_out(backend, radius, clip, kept, result):
    """Around x = 0.4 the networks differ from 7/12 on; no ball around 0.7 is tested if they differ at 0.7."""
    network, images = kink(), np.array([[0.7], [0.4], [0.0], [1.2]])
    gates, masks = mn.find_gates(network), xr.Dataset({"fc1": ("fc1_unit", np.array(kept))})
    found = agree_around(network, gates, masks, images, ImageBalls(radius, 2, clip), backend=backend)
    assert [ball.index for ball in found.balls] == ([0, 1] if all(kept) else [1, 2])
    assert found.clip == (clip or (0.0, 1.2))
    ball = found.balls[1 if all(kept) else 0]
    assert (ball.label, ball.result) == (1, result)
    if result == "refuted":
        assert ball.point is not None
        assert 7 / 12 <= ball.point[0] <= 0.4 + radius + 1e-12
        assert ball.classes == (0, 1)


def cancelling(count: int, **how) -> BallAgreements:
    """The result for pairs of equal units that cancel: pruning them changes nothing, which linear bounds do not show."""
    g = np.random.default_rng(0)
    n, pairs = 40, 60
    a, b = g.normal(size=(pairs, n)), g.normal(size=pairs) * 0.1
    top = np.concatenate([np.full(pairs, 9.0), np.full(pairs, -9.0)])
    layers = [
        ("fc1", mn.Dense(np.concatenate([a, a, np.eye(1, n)]), np.concatenate([b, b, [1.0]]))),
        ("relu1", mn.ReLU()),
        ("fc2", mn.Dense(np.array([[*top, 1.0], [*-top, 0.0]]), np.zeros(2))),
    ]
    network = mn.Network.build((n,), layers)
    masks = xr.Dataset({"fc1": ("fc1_unit", np.arange(2 * pairs + 1) == 2 * pairs)})
    images, asked = g.uniform(-0.1, 0.1, (3, n)), ImageBalls(0.3, count, (-9, 9))
    return agree_around(network, mn.find_gates(network), masks, images, asked, **how)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_time_it_stays_open(backend):
    found = cancelling(count=1, time_limit=0.05, backend=backend)
    assert [(ball.result, ball.point, ball.method) for ball in found.balls] == [("open", None, None)]
    assert not found.interrupted


def test_ctrl_c_ends_it_with_what_is_known(monkeypatch):
    """In the first of three balls, which linear bounds leave open."""

    def interrupted(branching):
        os.kill(os.getpid(), signal.SIGINT)
        return run(branching)

    run = SignBranching.run
    monkeypatch.setattr(SignBranching, "run", interrupted)
    found = cancelling(count=3, time_limit=600)
    assert found.interrupted
    assert found.asked == 3
    assert [ball.result for ball in found.balls] == ["open"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the digits example, with agreement around four images."""
    folder = tmp_path_factory.mktemp("agree") / "run"
    agree = "prune.agree={radius: 0.05, count: 4, time_limit: 120}"
    assert main(["solve", str(DIGITS), "--output", str(folder), "--set", agree, "--quiet"]) == 0
    return folder


def test_the_run_folder_holds_points_that_torch_confirms(written: Path) -> None:
    found = json.loads((written / "result.json").read_text())["agree"]
    inline = yaml.safe_load(DIGITS.read_text())["network"]
    module = build_module(inline["layers"], DIGITS.parent / inline["file"], [64]).double()
    images = load("digits", split="test", shape=(64,)).images
    masks = xr.load_dataset(written / "masks.nc")
    assert (found["radius"], found["clip"]) == (0.05, [images.min(), images.max()])
    assert found["proven"] + found["refuted"] + found["open"] == len(found["images"]) == 4
    assert found["proven"]
    assert found["refuted"]
    g = np.random.default_rng(0)
    for each in found["images"]:
        centre = images[each["index"]]
        low, high = np.maximum(centre - 0.05, images.min()), np.minimum(centre + 0.05, images.max())
        x = g.uniform(low, high, (2000, 64)) if each["point"] is None else np.array(each["point"])[None]
        assert ((low <= x) & (x <= high)).all()
        classes = [hooked(module, torch.tensor(x), where, masks).argmax(1) for where in ({}, {"relu1": "fc1", "relu2": "fc2"})]
        if each["result"] == "proven":
            assert (classes[0] == classes[1]).all()
        if each["result"] == "refuted":
            assert [int(c[0]) for c in classes] == each["classes"]
            assert each["classes"][0] != each["classes"][1]


def test_the_tables_and_json_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "prune={threshold: 0, agree: {radius: 0.02, count: 2}}", "--set", "output=null"]
    assert main(["solve", str(DIGITS), *sets]) == 0
    shown = capsys.readouterr().out
    assert "The same class within 0.02 of held-out images?" in shown
    assert shown.count("proven") == 2
    assert main(["solve", str(DIGITS), *sets, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["agree"]
    assert (told["proven"], [each["result"] for each in told["images"]]) == (2, ["proven", "proven"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("prune.agree={radius: 0}", "prune.agree.radius: got 0; expected a number greater than 0"),
        ("prune.agree={count: 3}", "prune.agree.radius: this key is missing"),
        ("prune.agree=0.1", "prune.agree: got 0.1; expected a mapping with radius, count, clip, time_limit"),
        (
            "prune.agree={radius: 0.1, clip: [1, 0]}",
            "prune.agree.clip: got [1, 0]; expected two numbers, the smaller one first, such as [0, 1]",
        ),
        ("prune.agree={radius: 0.1, cout: 3}", "prune.agree.cout: unknown key; did you mean `count`?"),
        ("prune.agree={radius: 0.1, count: 0}", "prune.agree.count: got 0; expected a whole number of at least 1"),
        ("prune.agree={radius: 0.1, clip: [-3, -2]}", "prune.agree: the ball misses the valid range [-3.0, -2.0]"),
        ("data.holdout=none", "prune.agree: it is about held-out images, and `data.holdout` is `none`"),
        ("solve.path={lambda: [1, 2]}", "prune.agree: it is about one mask per layer, and `solve.path` makes many"),
    ],
)
def test_bad_keys_give_one_clear_line_before_the_work(given: str, says: str) -> None:
    events: list[object] = []

    class Keep(RunListener):
        def solver_event(self, event: Event) -> None:
            events.append(event)

    with pytest.raises(MipnetError) as caught:
        run_importance(load_spec(DIGITS, ["output=null", "prune.agree={radius: 0.1}", given]), Keep())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not events
