"""A run from file to run folder: honest numbers, the same on both solvers, and nothing half-written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from safetensors.torch import load_file
from torch import nn

from mipnet.app.files.solve_file import SolveFile, load_spec
from mipnet.app.runs import folder as runfolder
from mipnet.app.runs import inputs as run_inputs
from mipnet.app.runs import solve as runs
from mipnet.app.runs.folder import save_result
from mipnet.app.runs.importance_run import Accuracy, ImportanceRun
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.network_description import describe
from mipnet.app.runs.result import plain
from mipnet.app.runs.solve import run_importance
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.backend import Event, Status
from mipnet.errors import InputError
from mipnet.readers.data import load
from mipnet.readers.files import build_module
from tests.interrupts import CtrlCInRun
from tests.sweep import marked, sweep

EXAMPLES = Path(__file__).parents[2] / "examples"
BACKENDS = ("highs", "scip")
NAMES = ("digits", "digits_cnn")
SOLVE_FILES = TASKS_BY_NAME["importance"].folder


def spec_of(name: str, folder: Path, *sets: str) -> SolveFile:
    return load_spec(EXAMPLES / f"{name}.yaml", [f"output={folder}", *sets])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], ImportanceRun]:
    """Return the run of an example on a solver; each is run once."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def run(name: str, backend: str) -> ImportanceRun:
        return run_importance(spec_of(name, folder / name / backend, f"solve.backend={backend}"))

    return run


@pytest.mark.parametrize(
    ("name", "backend"), [("digits", "highs"), *map(marked, [("digits", "scip"), ("digits_cnn", "highs"), ("digits_cnn", "scip")])]
)
def test_the_examples_are_solved_and_verified(done: Callable[[str, str], ImportanceRun], name: str, backend: str) -> None:
    run = done(name, backend)
    data = run.record
    assert (data["status"], data["verified"], data["backend"]) == ("optimal", True, backend)
    assert data["bound"] <= data["objective"] + 1e-9
    assert 0 <= data["gap"] <= 1e-4 + 1e-9
    assert data["max_error"] < 1e-5
    assert data["samples"] == 10
    assert run.verified


@pytest.mark.parametrize("name", sweep(NAMES, every=2))
def test_the_two_solvers_agree(done: Callable[[str, str], ImportanceRun], name: str) -> None:
    one, other = (done(name, backend).result for backend in BACKENDS)
    assert one.objective is not None
    assert other.objective is not None
    assert abs(one.objective - other.objective) <= 2e-4 * max(1, abs(one.objective))
    assert max(one.bound, other.bound) <= min(one.objective, other.objective) + 1e-6


def test_accuracies_are_those_of_torch(done: Callable[[str, str], ImportanceRun]) -> None:
    """The reference is torch, with the masks multiplied after the activations."""
    run = done("digits", "highs")
    inline = yaml.safe_load((EXAMPLES / "digits.yaml").read_text())["network"]
    module = build_module(inline["layers"], EXAMPLES / inline["file"], [64]).double()
    test = load("digits", split="test", shape=(64,))
    assert run.masks is not None
    masks = {name: torch.tensor(run.masks[name].values, dtype=torch.float64) for name in ("fc1", "fc2")}

    def right(masked: bool) -> float:
        x = torch.tensor(test.images)
        for name, layer in module.named_children():
            x = layer(x)
            if masked and name.startswith("relu"):
                x = x * masks[name.replace("relu", "fc")]
        return 100 * float((x.argmax(1).numpy() == test.labels).mean())

    assert run.evaluation.accuracy.reference == pytest.approx(right(False))
    assert run.evaluation.accuracy.masked == pytest.approx(right(True))
    assert run.evaluation.images == len(test)


def test_parameters_are_those_of_a_really_smaller_module(done: Callable[[str, str], ImportanceRun]) -> None:
    run = done("digits", "highs")
    kept = {c.name: c.kept for c in run.evaluation.layers}
    one, two = kept["fc1"], kept["fc2"]
    assert one is not None
    assert two is not None
    small = nn.Sequential(nn.Linear(64, one), nn.Linear(one, two), nn.Linear(two, 10))
    assert run.evaluation.after == sum(p.numel() for p in small.parameters())
    assert run.evaluation.before == sum(w.numel() for w in load_file(EXAMPLES / "digits.safetensors").values())
    assert run.evaluation.pruned == pytest.approx(100 * (1 - run.evaluation.after / run.evaluation.before))
    assert run.record["layers"] == {"fc1": {"kept": one, "total": 50}, "fc2": {"kept": two, "total": 20}}


def test_the_run_folder_holds_it_all(done: Callable[[str, str], ImportanceRun]) -> None:
    run = done("digits", "highs")
    folder = save_result(run)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == set(SOLVE_FILES) - {"parts.nc", "curve.svg"}
    assert run.scores is not None
    assert run.masks is not None
    for name, held in (("scores.nc", run.scores), ("masks.nc", run.masks)):
        with xr.open_dataset(folder / name, engine="netcdf4") as written:
            xr.testing.assert_identical(written.load(), held)
    assert json.loads((folder / "result.json").read_text()) == run.record
    assert (folder / "solver.log").read_text().count("\n") == len(run.program.log) > 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    again = run_importance(load_spec(folder / "model.yaml"))
    assert again.result.objective == run.result.objective
    save_result(again)


def test_without_a_point_nothing_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pointless(*given: Any, **options: Any) -> Any:
        nothing = {"x": None, "point": None, "objective": None, "gap": math.inf, "bound": -math.inf, "max_error": None, "verified": False}
        return replace(solve(*given, **options), status=Status.TIME_LIMIT, **nothing)

    solve = runs.solve
    monkeypatch.setattr(runs, "solve", pointless)
    run = run_importance(spec_of("digits", tmp_path / "run"))
    data = json.loads(json.dumps(run.record, allow_nan=False))
    assert (data["objective"], data["bound"], data["gap"], data["verified"]) == (None, None, None, False)
    assert data["params_pruned_percent"] == 0
    assert data["accuracy"]["masked"] is None
    assert data["accuracy"]["reference"] > 90
    assert "no point was found" in data["notes"][0]
    assert not run.verified
    folder = save_result(run)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {"model.yaml", "result.json", "solver.log"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_keeps_the_best_point(tmp_path: Path, backend: str) -> None:
    """Sound bounds with many images take long; the interrupt comes while the solver runs."""
    sets = ("formulation.bounds=sound", "data.per_class=2", "solve.time_limit=600", f"solve.backend={backend}")
    run = run_importance(spec_of("digits", tmp_path / "run", *sets), CtrlCInRun())
    assert run.result.status is Status.INTERRUPTED
    assert run.scores is not None
    assert run.evaluation.accuracy.masked is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_before_the_solver_starts_keeps_the_forward_pass(tmp_path: Path, backend: str) -> None:
    class Interrupt(RunListener):
        def solver_event(self, event: Event) -> None:
            raise KeyboardInterrupt

    run = run_importance(spec_of("digits", tmp_path / "run", f"solve.backend={backend}"), Interrupt())
    assert (run.result.status, run.result.verified, run.evaluation.pruned) == (Status.INTERRUPTED, True, 0.0)
    assert "nothing is pruned" in run.notes[-1]


def test_holdout_may_be_the_same_split_or_none(tmp_path: Path) -> None:
    run = run_importance(spec_of("digits", tmp_path / "a", "data.holdout=train", "data.pick=first"))
    assert "contains the images of the program" in run.notes[-1]
    none = run_importance(spec_of("digits", tmp_path / "b", "data.holdout=none", "data.pick=uncertain", "prune.threshold={params: 0.5}"))
    assert none.evaluation.accuracy == Accuracy()
    assert none.evaluation.pruned >= 50
    assert not list(tmp_path.iterdir())


def test_confident_images_are_those_the_network_is_surest_of(tmp_path: Path) -> None:
    asked = run_inputs.read_inputs(spec_of("digits", tmp_path))
    train = load("digits", shape=(64,))
    shares = torch.softmax(torch.tensor(asked.network.forward(train.images)), 1).numpy()
    for image, label in zip(asked.images.images, asked.images.labels, strict=True):
        best = train.images[train.labels == label][shares[train.labels == label, label].argmax()]
        assert np.array_equal(image, best)


def test_a_network_is_described(tmp_path: Path) -> None:
    spec = spec_of("digits_cnn", tmp_path)
    asked = run_inputs.read_inputs(spec)
    data = json.loads(json.dumps(describe(asked.network, run_inputs.build_program(spec, asked))))
    assert [gate["name"] for gate in data["gates"]] == ["conv1", "conv2", "fc1"]
    assert [gate["sites"] for gate in data["gates"]] == [["relu1"], ["relu2"], ["relu3"]]
    assert sum(node["parameters"] for node in data["nodes"]) == data["parameters"]
    assert set(data["program"]["unstable"]) == {"relu1", "relu2", "relu3"}
    assert data["program"]["size"]["rows"] > 0
    assert "program" not in describe(asked.network)


# run folders


def test_a_run_folder_is_overwritten_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    for text in ("one", "two"):
        runfolder.check_folder(folder, SOLVE_FILES)
        with runfolder.new_folder(folder, SOLVE_FILES) as fresh:
            (fresh / "result.json").write_text(text)
    assert (folder / "result.json").read_text() == "two"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds `notes\.txt`"):
        runfolder.check_folder(folder, SOLVE_FILES)
    with pytest.raises(InputError), runfolder.new_folder(folder, SOLVE_FILES):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "result.json"]
    (folder / "notes.txt").unlink()
    (folder / "result.json").rename(folder / "solver.log")
    with pytest.raises(InputError, match=r"no run folder of mipnet"):
        runfolder.check_folder(folder, SOLVE_FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_a_run_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with runfolder.new_folder(folder, SOLVE_FILES) as fresh:
        (fresh / "result.json").write_text("old")

    def interrupted() -> None:
        with runfolder.new_folder(folder, SOLVE_FILES) as fresh:
            (fresh / "result.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (folder / "result.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with runfolder.new_folder(tmp_path / "run", SOLVE_FILES) as fresh:
        (fresh / "result.json").write_text("new")
    assert (tmp_path / "run" / "result.json").read_text() == "new"


def test_json_has_no_number_that_json_lacks() -> None:
    given = {"a": [math.inf, math.nan, 1.5, np.float64(2)], "b": {"c": -math.inf}}
    assert plain(given) == {"a": [None, None, 1.5, 2.0], "b": {"c": None}}
