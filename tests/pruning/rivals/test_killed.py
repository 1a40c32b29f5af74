"""`lucky` and `learn` inside `keep_parts`, killed and called again: every number is that of a call without a break."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.limits.kept_parts import KeptParts
from mipnet.pruning.rivals.lucky_subnetworks import LuckyTable, lucky
from mipnet.pruning.rivals.parsimonious import Learned, ParsimoniousSettings, learn
from mipnet.readers.data import Dataset
from tests.sweep import sweep


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def data(seed: int) -> Dataset:
    g = np.random.default_rng(seed)
    return Dataset(g.normal(size=(40, 6)), g.integers(0, 3, 40), "made", 3)


def luckily() -> LuckyTable:
    keeps = {"fc1": ("fc1_unit", np.arange(8) % 2 == 0), "fc2": ("fc2_unit", np.arange(5) % 2 == 0)}
    settings = mn.TrainingSettings(epochs=2, batch=10, lr=0.05)
    return lucky(module(), xr.Dataset(keeps), data(0), data(1), seeds=(0, 1), settings=settings)


def learned() -> Learned:
    given = data(0)
    return learn(module(), given.images, given.labels, epochs=4, seed=1, settings=ParsimoniousSettings(warmup=1, batch=10))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, LuckyTable):
        assert one == other
        return
    assert one.history.identical(other.history)
    assert one.masks.identical(other.masks)
    states = [each.module.state_dict() for each in (one, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class Killed(BaseException):
    """The end of a process in a test that goes on."""


def end_at_part(count: int, end: Callable[[], None]) -> Callable[..., None]:
    """A `KeptParts.keep` that calls ``end`` when part number ``count`` is on disk."""
    plain, kept = KeptParts.keep, list[int]()

    def keep(*given: Any) -> None:
        plain(*given)
        kept.append(len(kept))
        if len(kept) == count:
            end()

    return keep


CALLS: dict[str, Callable[[], Any]] = {"lucky": luckily, "learn": learned}


@pytest.mark.parametrize(("call", "count"), sweep([("lucky", 2), ("lucky", 1), ("lucky", 4), ("learn", 1), ("learn", 3)], every=5))
def test_a_call_that_ended_goes_on_with_the_same_numbers(call: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CALLS[call]()

    def killed() -> None:
        raise Killed

    with monkeypatch.context() as patch, mn.keep_parts(tmp_path / "parts"):
        patch.setattr(KeptParts, "keep", end_at_part(count, killed))
        with pytest.raises(Killed):
            CALLS[call]()
    assert list((tmp_path / "parts").rglob("part-*"))
    torch.manual_seed(99)
    with mn.keep_parts(tmp_path / "parts"):
        assert_same(CALLS[call](), whole)


KILLED_AT_PART = """
import os, signal, sys
import mipnet as mn
from mipnet.limits.kept_parts import KeptParts
from tests.pruning.rivals.test_killed import CALLS, end_at_part
call, folder, count = sys.argv[1:]
KeptParts.keep = end_at_part(int(count), lambda: os.kill(os.getpid(), signal.SIGKILL))
with mn.keep_parts(folder):
    CALLS[call]()
"""


@pytest.mark.sweep
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("call", CALLS)
def test_a_process_that_is_killed_goes_on_in_another(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-c", KILLED_AT_PART, call, str(tmp_path / "parts"), "2"]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    trainings: list[Any] = []
    keep = KeptParts.keep

    def counted(*given: Any) -> None:
        trainings.append(given)
        keep(*given)

    monkeypatch.setattr(KeptParts, "keep", counted)
    with mn.keep_parts(tmp_path / "parts"):
        found = CALLS[call]()
    assert len(trainings) == {"lucky": 4, "learn": 2}[call]
    assert_same(found, CALLS[call]())
