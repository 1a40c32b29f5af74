"""A run along a path: one line a point on the screen, in JSON and in the run folder, each as a run of its own would have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr

from mipnet.app.cli.main import main
from mipnet.app.figures import CurvePoint, path_curve
from mipnet.app.files.base import load_as
from mipnet.app.files.compare_file import SOLVE_SECTIONS, CompareFile
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.compare import run_comparison
from mipnet.app.runs.folder import save_result
from mipnet.app.runs.solve import run_importance
from mipnet.backend import Status
from mipnet.errors import InputError
from mipnet.pruning.importance.weight_path import spaced_weights
from tests.clock import TickingClock
from tests.interrupts import CtrlCInRun
from tests.sweep import marked

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = str(EXAMPLES / "digits.yaml")
FROZEN = ("formulation.relu=frozen", "output=null")


@pytest.mark.parametrize(
    ("images", "relu", "backend"),
    [(1, "frozen", "highs"), marked((1, "big-m", "scip")), marked((1, "big-m", "highs")), marked((1, "frozen", "scip"))]
    + [marked((2, relu, backend)) for relu in ("big-m", "frozen") for backend in ("highs", "scip")],
)
def test_every_point_is_a_run_of_its_own(images: int, relu: str, backend: str) -> None:
    sets = (f"solve.backend={backend}", f"formulation.relu={relu}", f"data.per_class={images}", "output=null", "solve.mip_gap=1e-5")
    run = run_importance(load_spec(DIGITS, [*sets, "solve.path={lambda: [20, 1], points: 2}"]))
    assert (run.verified, run.result.status, run.path.parameter) == (True, Status.OPTIMAL, "weight")
    assert [step.value for step in run.path.points] == list(spaced_weights(20, 1, 2))
    for step in run.path.points:
        alone = run_importance(load_spec(DIGITS, [*sets, f"objective.weight={step.value!r}"]))
        assert step.result.objective == pytest.approx(alone.result.objective, abs=4e-4)
        assert step.result.bound <= alone.result.objective + 1e-6
        assert run.evaluation.accuracy.reference == alone.evaluation.accuracy.reference
    assert run.result.rounds == sum(step.result.rounds for step in run.path.points)


def test_a_point_is_judged_by_its_masks() -> None:
    run = run_importance(load_spec(DIGITS, [*FROZEN, "solve.path={lambda: [1, 20], points: 2}"]))
    for step in run.path.points:
        alone = run_importance(load_spec(DIGITS, [*FROZEN, f"objective.weight={step.value!r}"]))
        assert step.pruned == pytest.approx(alone.evaluation.pruned, abs=3)  # other optima of the same program may score otherwise
        assert step.accuracy == pytest.approx(alone.evaluation.accuracy.masked, abs=8)
        assert step.masks is not None
        xr.testing.assert_equal(run.masks.sel(weight=step.value, drop=True), step.masks)
    assert run.path.points[0].pruned > run.path.points[1].pruned


@pytest.mark.sweep
def test_the_command_line_shows_a_line_a_point(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["solve", DIGITS, "--path", "lambda=0.5:20:3", "--set", "formulation.relu=frozen", "--output", str(folder)]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines()[:-1])) <= 80
    assert "Path along weight, accuracy on 359 held-out images" in shown.out
    assert [line.split()[0] for line in shown.out.splitlines() if " optimal " in line][1:] == ["0.5", "3.16", "20"]
    assert shown.err.count(" pruned, ") == 3
    assert {path.name for path in folder.iterdir()} == {"curve.svg", "masks.nc", "model.yaml", "result.json", "scores.nc", "solver.log"}
    with xr.open_dataset(folder / "scores.nc", engine="netcdf4") as scores:
        assert list(scores["weight"].values) == list(spaced_weights(0.5, 20, 3))
        assert scores["fc1"].dims == ("weight", "fc1_unit")
    assert (folder / "solver.log").read_text().count("--- lambda") == 3
    assert main(["solve", str(folder / "model.yaml"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["along"] == "weight"
    assert [set(step) for step in data["path"]] == [
        {"weight", "status", "objective", "bound", "gap", "runtime_s", "verified", "params_pruned_percent", "accuracy"}
    ] * 3
    assert (data["status"], data["objective"], data["layers"], data["parameters"]["after"]) == ("optimal", None, {}, None)
    assert main(["solve", str(folder / "model.yaml"), "--quiet", "--set", "solve.path.points=2"]) == 0


def test_ctrl_c_keeps_the_points_so_far() -> None:
    spec = load_spec(
        DIGITS, [*FROZEN, "data.per_class=20", "solve.mip_gap=0", "solve.time_limit=null", "solve.path={lambda: [0.5, 20], points: 60}"]
    )
    run = run_importance(spec, CtrlCInRun(after_point=True))
    assert run.result.status is Status.INTERRUPTED
    assert len(run.path.points) == 2
    assert run.path.points[0].result.status is Status.OPTIMAL
    assert run.path.points[-1].result.status is Status.INTERRUPTED
    assert run.record["status"] == "interrupted"


@pytest.mark.sweep
def test_without_points_and_without_images_to_judge_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "solve.path={lambda: [0.5, 20], points: 2}"
    cold = load_spec(DIGITS, ["solve.start=none", "solve.time_limit=1e-9", f"output={tmp_path / 'cold'}", path])
    with monkeypatch.context() as patched:
        TickingClock(patched).moves = 0.0  # only the solver's own clock moves
        run = run_importance(cold)
    assert (run.verified, run.scores, run.masks) == (False, None, None)
    assert [step.accuracy for step in run.path.points] == [None, None]
    assert "no point was found" in run.notes[-1]
    save_result(run)
    assert {file.name for file in (tmp_path / "cold").iterdir()} >= {"result.json", "model.yaml"}
    unjudged = run_importance(load_spec(DIGITS, ["formulation.relu=frozen", "data.holdout=none", f"output={tmp_path / 'run'}", path]))
    assert [step.accuracy for step in unjudged.path.points] == [None, None]
    assert unjudged.path.points[0].pruned is not None
    save_result(unjudged)
    assert not (tmp_path / "run" / "curve.svg").exists()


def test_a_comparison_takes_one_set_of_scores(tmp_path: Path) -> None:
    path = "solve.path={lambda: [0.5, 20], points: 2}"
    save_result(run_importance(load_spec(DIGITS, ["formulation.relu=frozen", f"output={tmp_path / 'run'}", path])))
    for sets in ([path], [f"scores={tmp_path / 'run'}", *(f"{name}=null" for name in SOLVE_SECTIONS)]):
        file = load_as(CompareFile, EXAMPLES / "compare.yaml", [*sets, "output=null"])
        with pytest.raises(InputError, match="a comparison is about one set of scores, and a path has many"):
            run_comparison(file)


def test_the_curve_has_every_point_and_its_value() -> None:
    figure = path_curve("weight", [CurvePoint(20.0, 10.0, 97.0), CurvePoint(0.5, 60.0, 80.0), CurvePoint(4.0, 30.0, 95.0)], 98.0, 359)
    (axes,) = figure.axes
    whole, line = axes.get_lines()
    assert list(line.get_xdata()) == [10.0, 30.0, 60.0]
    assert list(whole.get_ydata()) == [98.0, 98.0]
    assert [text.get_text() for text in axes.texts] == ["20", "4", "0.5"]


def test_a_spec_with_a_path_is_written_and_read_again() -> None:
    spec = load_spec(DIGITS, [*FROZEN, "solve.path={lambda: [0.5, 20]}"])
    assert spec.resolved()["solve"]["path"] == {"lambda": [0.5, 20.0], "points": 8}
