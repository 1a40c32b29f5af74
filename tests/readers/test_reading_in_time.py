"""Reading ends at the end of a time limit, whatever the kind of file, and then nothing half-read is returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mipnet as mn
from mipnet.app.files.base import load_as
from mipnet.app.files.verify_file import VerifyFile
from mipnet.app.runs.verify import run_verification
from mipnet.app.runs.vnncomp import result_word
from mipnet.app.runs.vnncomp_instances import VerifySettings, verify_files
from mipnet.errors import TimeLimitReached
from tests.clock import StoppingClock
from tests.readers.onnx_graphs import dense_model

ROWS = "\n".join(f"(assert (or (<= Y_0 {k}) (>= Y_1 {k})))" for k in range(3))
PROPERTY = (
    "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
    "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))" + ROWS
)


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


LAYERS = [
    {"name": "0", "type": "Linear", "in_features": 2, "out_features": 3},
    {"name": "1", "type": "ReLU"},
    {"name": "2", "type": "Linear", "in_features": 3, "out_features": 2},
]


def attempt(read: Callable[[], object]) -> object:
    """Return what was read, or the error at the end of the time."""
    try:
        return read()
    except TimeLimitReached as late:
        return late


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in most formats, a property, and a YAML file of both."""
    found = tmp_path_factory.mktemp("in_time")
    onnx.save(dense_model(module()), found / "net.onnx")
    save_file(module().state_dict(), found / "net.safetensors")
    torch.save(module().state_dict(), found / "net.pt")
    (found / "prop.vnnlib").write_text(PROPERTY)
    (found / "verify.yaml").write_text("mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\nproperty: prop.vnnlib\n")
    return found


def readers(folder: Path) -> dict[str, Callable[[], object]]:
    weights = {"layers": LAYERS, "input_shape": (2,), "time_limit": 60}
    return {
        "pt2": lambda: mn.read(folder / "net.pt2", time_limit=60),
        "onnx": lambda: mn.read(folder / "net.onnx", time_limit=60),
        "from_onnx": lambda: mn.from_onnx(folder / "net.onnx", time_limit=60),
        "safetensors": lambda: mn.read(folder / "net.safetensors", **weights),
        "pt": lambda: mn.read(folder / "net.pt", **weights),
        "torch": lambda: mn.from_torch(module(), torch.zeros(1, 2), time_limit=60),
        "vnnlib": lambda: mn.read_vnnlib(folder / "prop.vnnlib", time_limit=60),
    }


NAMES = ["onnx", *(pytest.param(each, marks=pytest.mark.sweep) for each in ("pt2", "from_onnx", "safetensors", "pt", "torch", "vnnlib"))]


@pytest.mark.parametrize("name", NAMES)
def test_reading_stops_at_every_look_at_the_clock(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "pt2":
        mn.export(module(), folder / "net.pt2", torch.zeros(1, 2))
    read, looks, stops = readers(folder)[name], 1, 0
    while True:
        clock = StoppingClock(monkeypatch, looks)
        found = attempt(read)
        if isinstance(found, TimeLimitReached):
            assert "the time limit ended before mipnet could" in str(found)
            assert clock.readings == looks + 1, "work went on after the end of the time"
            stops, looks = stops + 1, looks + 1 + looks // 3
            continue
        assert not clock.stopped
        assert stops >= 3
        x = np.array([[0.25, -0.5]])
        if isinstance(found, mn.Network):
            np.testing.assert_allclose(found.forward(x), module().double()(torch.tensor(x)).detach(), atol=1e-6)
        return


def test_verify_says_timeout_where_the_time_ends_while_the_files_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StoppingClock(monkeypatch, 3)
    verdict = verify_files(folder / "net.onnx", folder / "prop.vnnlib", VerifySettings(), 60.0)
    assert (verdict.status, verdict.stage, verdict.bound) == ("unknown", None, -np.inf)
    assert "the time limit ended before mipnet could" in verdict.note
    StoppingClock(monkeypatch, 6)
    run = run_verification(load_as(VerifyFile, folder / "verify.yaml"))
    assert run.verdict.status == "unknown"
    assert "the time limit ended before mipnet could" in run.verdict.note
    assert result_word(run.verdict, 1e-9) == "timeout"
