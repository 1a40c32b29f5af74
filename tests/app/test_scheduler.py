"""`mipnet solve --scheduler`: the programs of a decoupled run are sent to a running scheduler, and the scores are the same."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from mipnet.app.cli.main import main

DIGITS = Path(__file__).parents[2] / "examples" / "digits.yaml"


def solve(output: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The JSON that the command prints, and its messages."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert main(["solve", str(DIGITS), "--set", "solve.decouple=class", "--output", str(output), "--json", *more]) == 0
    return json.loads(out.getvalue()), err.getvalue()


@pytest.mark.sweep
def test_the_scheduler_runs_the_programs_of_a_decoupled_run(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    place = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(protocol="tcp", host="127.0.0.1", **place) as cluster:
        data, messages = solve(tmp_path / "there", "--scheduler", cluster.scheduler_address)
        assert len(cluster.scheduler.task_prefixes) > 0, "programs have run there"
    solve(tmp_path / "here", "--workers", "0")
    assert "10 of 10" in messages
    assert data["verified"]
    with xr.open_dataset(tmp_path / "here" / "scores.nc") as here, xr.open_dataset(tmp_path / "there" / "scores.nc") as there:
        xr.testing.assert_allclose(here, there, atol=1e-9)
