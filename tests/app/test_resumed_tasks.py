"""`--resume` of paths, comparisons, distortions and compressions: a run that was killed goes on from its finished parts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import save_file

from mipnet.app.cli.main import main
from mipnet.app.files.base import SpecFile
from mipnet.app.runs.resume import interrupted_text
from mipnet.arrays import Array
from mipnet.limits.kept_parts import KeptParts
from mipnet.pruning.rivals import comparison
from mipnet.solving.open_problem import OpenProblem
from mipnet.verification import distortion_search
from mipnet.verification.two_networks import compression
from mipnet.version import __version__

EXAMPLES = Path(__file__).parents[2] / "examples"

FILE = """mipnet: 1
task: %s
network:
  file: net.safetensors
  input_shape: [4]
  layers:
    - {name: fc1, type: Linear, in_features: 4, out_features: 10}
    - {name: relu1, type: ReLU}
    - {name: fc2, type: Linear, in_features: 10, out_features: 10}
    - {name: relu2, type: ReLU}
    - {name: fc3, type: Linear, in_features: 10, out_features: 3}
region: {data: {source: npz, file: images.npz}, radius: %s}
"""
LABEL = 2
"""The class of both images by that network."""

SMALL = ["--set", "formulation.relu=frozen", "--set", "data.per_class=1"]
COMMANDS = {
    "path": ["solve", str(EXAMPLES / "digits.yaml"), "--set", "formulation.relu=frozen", "--path", "lambda=0.5:20:2"],
    "compare": [
        *("compare", str(EXAMPLES / "compare.yaml"), "--set", "compare.shares=[0.3]", "--set", "data.per_class=3"),
        *("--set", "compare.rivals=[random, fisher, magnitude]"),
    ],
    "path on SCIP": ["solve", str(EXAMPLES / "digits.yaml"), "--path", "lambda=0.5:20:3", "--backend", "scip", *SMALL],
    "distortion": ["distortion", "distortion.yaml"],
    "compress": ["compress", "compress.yaml"],
}
"""Commands that keep parts."""


class Killed(BaseException):
    """The end of a process in a test that goes on."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network, two images, and a file for each task that is about an image."""
    monkeypatch.chdir(tmp_path)
    g = np.random.default_rng(0)
    sizes = {"fc1": (10, 4), "fc2": (10, 10), "fc3": (3, 10)}
    weights = {f"{name}.weight": g.normal(size=shape) / 2 for name, shape in sizes.items()}
    save_file(weights | {f"{name}.bias": g.normal(size=rows) / 2 for name, (rows, _) in sizes.items()}, tmp_path / "net.safetensors")
    save_images(tmp_path, g.normal(size=(2, 4)))
    for task, radius in (("distortion", 5), ("compress", 0.2)):
        (tmp_path / f"{task}.yaml").write_text(FILE % (task, radius))
    return tmp_path


def save_images(folder: Path, images: Array) -> None:
    np.savez(folder / "images.npz", images=images, labels=[LABEL, LABEL])


def run(task: str, *more: str) -> int:
    return main([*COMMANDS[task], "--output", "run", "--quiet", *more])


def result() -> Any:
    return json.loads(Path("run/result.json").read_text())


def kill_after(monkeypatch: pytest.MonkeyPatch, count: int, end: Callable[[], None]) -> None:
    """Call ``end`` when part number ``count`` is on disk."""
    plain, kept = KeptParts.keep, []

    def keep(*given: Any) -> None:
        plain(*given)
        kept.append(given)
        if len(kept) == count:
            end()

    monkeypatch.setattr(KeptParts, "keep", keep)


def killed() -> None:
    raise Killed


def counted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[Any]:
    """The arguments of all calls of a function from now on."""
    plain, calls = getattr(place, name), list[Any]()

    def call(*given: Any, **more: Any) -> Any:
        calls.append(given)
        return plain(*given, **more)

    monkeypatch.setattr(place, name, call)
    return calls


TIMES = re.compile(r"(^|_)(time|times|seconds|runtime_s|[a-z]+_s)$|^resumed$")
"""Keys of a result that differ from run to run: times, and what was resumed."""


def without_times(data: Any) -> Any:
    """Return the data of a result without its times."""
    if isinstance(data, dict):
        return {key: without_times(value) for key, value in data.items() if not TIMES.search(key)}
    return [without_times(each) for each in data] if isinstance(data, list) else data


def assert_same_run(folder: str, other: str) -> None:
    """Compare every number of two run folders, and every array, but no times."""
    here, there = (json.loads((Path(each) / "result.json").read_text()) for each in (folder, other))
    assert without_times(here) == without_times(there)
    names = {path.name for path in Path(folder).glob("*.nc")}
    assert names == {path.name for path in Path(other).glob("*.nc")}
    for name in names:
        xr.testing.assert_identical(*(xr.load_dataset(Path(each) / name, engine="netcdf4") for each in (folder, other)))


def run_killed(monkeypatch: pytest.MonkeyPatch, task: str, count: int) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, count, killed)
        with pytest.raises(Killed):
            run(task)
    assert not Path("run").exists()


def test_a_path_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("path") == 0
    os.rename("run", "whole")
    run_killed(monkeypatch, "path", 1)
    assert run("path") == 2
    assert "`run.parts` holds parts of a run that was not finished; continue it with --resume" in capsys.readouterr().err
    solves = counted(monkeypatch, OpenProblem, "solve")
    assert run("path", "--resume") == 0
    assert len(solves) == 1
    assert_same_run("run", "whole")
    assert not Path("run.parts").exists()


@pytest.mark.sweep
@pytest.mark.parametrize("count", [1, 2])
def test_a_path_on_scip_goes_on(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    assert run("path on SCIP") == 0
    os.rename("run", "whole")
    run_killed(monkeypatch, "path on SCIP", count)
    solves = counted(monkeypatch, OpenProblem, "solve")
    assert run("path on SCIP", "--resume") == 0
    assert len(solves) == 3 - count
    assert_same_run("run", "whole")


@pytest.mark.sweep
def test_a_comparison_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("compare") == 0
    whole = result()
    os.rename("run", "whole")
    run_killed(monkeypatch, "compare", 3)
    solves, rivals = counted(monkeypatch, OpenProblem, "solve"), counted(monkeypatch, comparison._Contest, "rows")
    assert run("compare", "--resume") == 0
    assert (solves, [rival.name for _, rival, *_ in rivals]) == ([], ["magnitude"])
    assert {row["rival"]: row["accuracy"] for row in result()["rows"]} == {row["rival"]: row["accuracy"] for row in whole["rows"]}
    assert result()["run"]["objective"] == whole["run"]["objective"]
    assert result()["warnings"] == whole["warnings"]


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.sweep), pytest.param(3, marks=pytest.mark.sweep)])
def test_a_distortion_goes_on(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    assert run("distortion") == 0
    whole = result()
    os.rename("run", "whole")
    run_killed(monkeypatch, "distortion", count)
    (kept,) = Path("run.parts").glob("*/part-*.json")
    bracket = json.loads(kept.read_text())["bracket"]
    attacks = counted(monkeypatch, distortion_search.DistortionSearch, "_attack")
    assert run("distortion", "--resume", "--time-limit", "50") == 0
    assert not attacks
    assert result()["lower"] >= bracket["lower"]
    assert (result()["lower"], result()["upper"]) == pytest.approx((whole["lower"], whole["upper"]), rel=5e-3)


def test_a_compression_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("compress") == 0
    whole = result()
    os.rename("run", "whole")
    run_killed(monkeypatch, "compress", 2)
    searches = counted(monkeypatch, compression.ReluStates, "search")
    assert run("compress", "--resume", "--set", "save=small.safetensors") == 0
    assert not searches
    assert result()["layers"] == whole["layers"]
    assert result()["agreement"]["agree"] is True
    assert Path("small.safetensors").exists()


KILLED_AT_FIRST_PART = """
import os, signal, sys
from mipnet.app.cli.main import run_and_exit
from mipnet.limits.kept_parts import KeptParts
plain = KeptParts.keep
def keep(*given):
    plain(*given)
    os.kill(os.getpid(), signal.SIGKILL)
KeptParts.keep = keep
run_and_exit()
"""


@pytest.mark.sweep
@pytest.mark.parametrize("task", COMMANDS)
def test_a_process_that_is_killed_leaves_its_part_and_no_lock(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-c", KILLED_AT_FIRST_PART, *COMMANDS[task], "--output", "run", "--quiet"]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    (kept,) = Path("run.parts").glob("*/part-*.json")
    content = kept.read_bytes()
    assert run(task) == 2
    assert kept.read_bytes() == content
    assert "continue it with --resume" in capsys.readouterr().err
    assert run(task, "--resume") == 0
    assert {path.name for path in Path().glob("*run*")} == {"run"}
    if task.startswith("path"):
        os.rename("run", "resumed")
        assert run(task) == 0
        assert_same_run("run", "resumed")


@pytest.mark.parametrize("task", [task if task == "compare" else pytest.param(task, marks=pytest.mark.sweep) for task in COMMANDS])
def test_ctrl_c_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert run(task) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1 finished part is kept in `run.parts`: the same command with --resume goes on from there" in last
    assert run(task, "--resume") == 0
    assert {path.name for path in Path().glob("*run*")} == {"run"}


def test_an_interrupted_run_without_a_run_folder_says_that_nothing_is_kept() -> None:
    said = [interrupted_text(SpecFile.model_construct(output=output)) for output in (None, "run")]
    assert said == ["interrupted, and nothing is kept, because there is no `output`", "interrupted"]


def test_no_part_without_a_run_folder(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main([*COMMANDS["compress"], "--resume"]) == 2
    assert capsys.readouterr().err == (
        "error: --resume keeps the parts beside the run folder, and no `output` is given; name it, or leave --resume out\n"
    )
    assert main(["reach", "compress.yaml", "--resume"]) == 2
    assert "No such option: --resume" in capsys.readouterr().err
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--resume"]) == 2
    assert "--resume keeps the parts of a decoupled run or a path, and this is one program" in capsys.readouterr().err


CHANGES: dict[str, tuple[str, ...]] = {
    "radius": ("--set", "region.radius=0.21"),
    "index": ("--set", "region.index=1"),
    "backend": ("--backend", "scip"),
    "seed": ("--set", "solve.seed=1"),
}


@pytest.mark.parametrize("changed", [name if name == "radius" else pytest.param(name, marks=pytest.mark.sweep) for name in CHANGES])
def test_another_key_is_another_question(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: str) -> None:
    run_killed(monkeypatch, "compress", 1)
    assert run("compress", "--resume", *CHANGES[changed]) == 2
    said = capsys.readouterr().err
    assert "holds parts of another run, with a different `" in said
    assert changed in said.partition("with a different `")[2].partition(":")[0]


@pytest.mark.parametrize("changed", ["network", "mipnet", pytest.param("image", marks=pytest.mark.sweep)])
def test_what_the_file_names_is_part_of_the_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, changed: str
) -> None:
    """The same keys, and other bytes of the weights, or of the images, or another version."""
    run_killed(monkeypatch, "compress", 1)
    if changed == "network":
        content = bytearray((folder / "net.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "net.safetensors").write_bytes(content)
    elif changed == "image":
        with np.load(folder / "images.npz") as data:
            save_images(folder, data["images"] + 1e-9)
    else:
        monkeypatch.setattr("mipnet.app.runs.resume.__version__", f"{__version__}.post1")
    assert run("compress", "--resume") == 2
    named = {"network": "network", "image": "region", "mipnet": "mipnet"}[changed]
    assert f"holds parts of another run, with a different `{named}`: change it back, or remove that folder" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["compress", pytest.param("compare", marks=pytest.mark.sweep)])
def test_a_damaged_part_is_computed_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str) -> None:
    """One digit of the numbers is another one: it is still JSON."""
    run_killed(monkeypatch, task, 1)
    (kept,) = Path("run.parts").glob("*/part-*.json")
    text = kept.read_text()
    place = max(text.rfind(": 0,"), text.rfind(": 0\n"), text.rfind(": 3,")) + 2
    kept.write_text(f"{text[:place]}7{text[place + 1 :]}")
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(task, "--resume") == 0
    assert "its arrays are damaged" in capsys.readouterr().err
