"""Parts on disk come back as they were, or not at all; digests tell apart all that a part depends on."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, OutputInUse
from mipnet.limits.array_dataset import array_dataset, dataset_arrays
from mipnet.limits.digests import digest
from mipnet.limits.kept_parts import NOTHING_KEPT, KeptParts, PackedPart, PartsStore, keep_parts, kept_parts, remove_parts
from mipnet.limits.result_warnings import add_warning, collected_warnings

RECORD = {"value": 1.5, "far": math.inf, "count": np.int64(3), "row": np.arange(2), 7: "seven"}
ARRAYS = xr.Dataset({"a": ("unit", [0.1, 0.2])}, attrs={"title": "scores"})


def both(record: Any, arrays: Any) -> tuple[Any, Any]:
    return record, arrays


@pytest.fixture
def parts(tmp_path: Path) -> KeptParts:
    return PartsStore(tmp_path / "parts").open("f", {"x": 1})


@pytest.mark.parametrize("label", [3, "rival a/b..", 0.1, "+"])
def test_parts_come_back(parts: KeptParts, label: Any) -> None:
    assert parts.read(label, both) is None
    for arrays in (ARRAYS, 2 * ARRAYS, 3 * ARRAYS, None, ARRAYS):
        parts.keep(label, RECORD, arrays)
        record, found = parts.read(label, both) or (None, None)
        assert (record["value"], record["far"], record["count"], record["row"], record["7"]) == (1.5, math.inf, 3, [0, 1], "seven")
        assert found is None if arrays is None else found.identical(arrays)
    assert len(list(parts.own.iterdir())) == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("second", [False, True])
def test_a_kill_while_a_part_is_replaced_leaves_the_old_one(parts: KeptParts, monkeypatch: pytest.MonkeyPatch, second: bool) -> None:
    """After the new arrays are written and before the numbers are."""
    if second:
        parts.keep("a", {"n": 0}, ARRAYS)
    parts.keep("a", {"n": 1}, ARRAYS)

    def kill(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mipnet.limits.kept_parts.write_whole", kill)
        with pytest.raises(KeyboardInterrupt):
            parts.keep("a", {"n": 2}, 2 * ARRAYS)
    record, arrays = parts.read("a", both) or (None, None)
    assert record["n"] == 1
    assert arrays.identical(ARRAYS)
    parts.keep("a", {"n": 3}, 3 * ARRAYS)
    assert (parts.read("a", both) or [{}])[0]["n"] == 3


def test_every_changed_byte_is_noticed(parts: KeptParts) -> None:
    parts.keep("a", {"n": 12, "word": "yes"}, ARRAYS)
    assert parts.own is not None
    for file in parts.own.glob("part-*"):
        content = file.read_bytes()
        for place in range(0, len(content), max(1, len(content) // 60)):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = parts.read("a", both)
            assert found is None or (found[0]["n"], found[0]["word"]) == (12, "yes")
            assert found is not None or "this part is computed again" in str(said[-1].message)
        file.write_bytes(content)
    assert parts.read("a", both) is not None


def test_other_arrays_are_noticed(parts: KeptParts) -> None:
    """A whole file of arrays, which belongs to another part."""
    parts.keep("a", RECORD, ARRAYS)
    parts.keep("b", RECORD, 2 * ARRAYS)
    assert parts.own is not None
    shutil.copy(*sorted(parts.own.glob("*.nc")))
    with pytest.warns(RuntimeWarning, match="SHA-256 of `part-b.nc` is not the one"):
        assert parts.read("b", both) is None


def test_a_part_of_another_question_is_none_of_this_one(parts: KeptParts, tmp_path: Path) -> None:
    other = PartsStore(tmp_path / "parts").open("f", {"x": 2})
    for each in (parts, other):
        each.keep("a", {"n": 1})
    assert parts.own is not None
    assert other.own is not None
    (other.own / "part-a.json").write_bytes((parts.own / "part-a.json").read_bytes())
    with pytest.warns(RuntimeWarning, match="computed again"):
        assert other.read("a", both) is None


def test_once(parts: KeptParts) -> None:
    def compute() -> int:
        calls.append(1)
        add_warning("not closed")
        return 5

    def once(label: str, kept: bool = True) -> int:
        return parts.once(label, compute, lambda n: PackedPart({"n": n}) if kept else None, lambda record, _: int(record["n"]))

    calls = list[int]()
    for _ in range(2):
        with collected_warnings() as added:
            assert once("a") == 5
        assert added == ["not closed"]
    assert len(calls) == 1
    assert [once("b", kept=False) for _ in range(2)] == [5, 5]
    assert len(calls) == 3


def test_nothing_is_kept_without_a_store() -> None:
    assert kept_parts("f", {"x": object}) is NOTHING_KEPT
    NOTHING_KEPT.keep("a", {})
    assert NOTHING_KEPT.read("a", both) is None


def test_the_store_of_one_run_holds_nothing_else(tmp_path: Path) -> None:
    def store(about: int) -> PartsStore:
        return PartsStore(tmp_path / "parts", {"spec": {"a": about, "b": 1}}, exclusive=True)

    store(1).open("f", {"arguments": {"x": "1"}}).keep("a", {})
    store(1).open("g", {"arguments": {"y": "1"}})
    with pytest.raises(InputError, match="holds parts of another run, with a different `x`: change it back, or remove that folder"):
        store(1).open("f", {"arguments": {"x": "2"}})
    for function in "fg":
        with pytest.raises(InputError, match="with a different `a`"):
            store(2).open(function, {"arguments": {"x": "1"}})
    remove_parts(tmp_path / "parts", store(2).about)
    assert (tmp_path / "parts").exists()
    remove_parts(tmp_path / "parts", store(1).about)
    assert not (tmp_path / "parts").exists()
    (tmp_path / "parts" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="holds `mine`, which mipnet did not write"):
        store(1).open("f", {})
    remove_parts(tmp_path / "parts", {})
    assert (tmp_path / "parts" / "mine").exists()


def test_one_process_keeps_parts_in_a_folder(tmp_path: Path) -> None:
    code = f"import mipnet as mn\nwith mn.keep_parts({str(tmp_path / 'parts')!r}): pass"
    with keep_parts(tmp_path / "parts"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("mipnet.errors.OutputInUse: `")
    assert OutputInUse.__name__ in done.stderr
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; expected a folder for finished parts"), keep_parts(tmp_path / "file"):
        pass


def test_arrays_of_any_name() -> None:
    arrays = {
        "0.weight": np.eye(2, dtype=np.float32),
        "a/b": np.array(3),
        "": np.array([True, False]),
        "state": np.arange(3, dtype=np.uint8),
    }
    found = dataset_arrays(array_dataset(arrays))
    assert {name: (each.dtype, each.tolist()) for name, each in found.items()} == {n: (a.dtype, a.tolist()) for n, a in arrays.items()}
    assert dataset_arrays(None) == {}


# digests


class Colour(Enum):
    RED = 1
    BLUE = 1.5


@dataclass(frozen=True)
class Settings:
    one: float = 1.0
    other: Any = None


class Own:
    def __init__(self, value: object) -> None:
        self.value = value


def module(seed: int, negative_slope: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(negative_slope), nn.Linear(3, 2))


def network(weight: float = 1.0, name: str = "fc", bias: float = 0.0, relu: bool = True) -> mn.Network:
    layers: list[Any] = [(name, mn.Dense([[weight, 2.0]], [bias]))]
    return mn.Network.build((2,), [*layers, *([("relu", mn.ReLU())] if relu else [])])


DIFFERENT = {
    "numbers": [None, False, True, 0, 1, -1, 1.0, 1.5, "", "1", b"1", (), [], {}, "None"],
    "sequences": [(1, 2), (2, 1), [1, 2], (1, (2,)), ((1,), 2), (12,), range(1, 3), {1, 2}, {1, 3}],
    "mappings": [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}, {1: 1}, {"1": 1}],
    "arrays": [np.zeros(2), np.zeros((2, 1)), np.zeros((1, 2)), np.zeros(2, dtype=np.float32), np.array([0, 1e-300]), torch.zeros(2)],
    "objects": [Settings(), Settings(2.0), Settings(1.0, 1), Own(1), Own(2), Own(Own(1)), Colour.RED, Colour.BLUE, Path("a"), Path("b")],
    "functions": [digest, kept_parts, Settings, Own],
    "data": [
        xr.Dataset({"a": ("unit", [1.0])}),
        xr.Dataset({"a": ("unit", [2.0])}),
        xr.Dataset({"b": ("unit", [1.0])}),
        xr.Dataset({"a": ("other", [1.0])}),
        xr.Dataset({"a": ("unit", [1.0])}, coords={"unit": [3]}),
        xr.DataArray([1.0], dims="unit"),
        xr.DataArray([1.0], dims="unit", coords={"unit": [3]}),
    ],
    "modules": [module(0), module(1), module(0, 0.2), nn.Sequential(module(0))],
    "networks": [network(), network(1 + 1e-15), network(name="fc2"), network(bias=1e-9), network(relu=False)],
    "sets": [
        mn.LInf(np.zeros((1, 2)), 1.0),
        mn.LInf(np.zeros((1, 2)), 1.5),
        mn.L1(np.zeros((1, 2)), 1.0),
        mn.Box(np.zeros((1, 2)), np.ones((1, 2))),
    ],
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_things_have_different_digests(kind: str) -> None:
    found = [digest(each) for each in DIFFERENT[kind]]
    assert len(set(found)) == len(found)


def test_equal_things_have_equal_digests() -> None:
    for one, other in (
        (network(), network()),
        (module(0), module(0)),
        (np.zeros((2, 3)).T, np.zeros((3, 2))),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (Own([1]), Own([1])),
    ):
        assert digest(one) == digest(other)
    used = network()
    used.forward(np.ones((1, 2)))
    assert used.consumers
    assert digest(used) == digest(network())


def test_digests_are_those_of_other_processes() -> None:
    code = "from mipnet.limits.digests import digest; import mipnet as mn; print(digest([{'a', 'b'}, mn.Dense([[1.0]], [0.0]), {'x': 1}]))"
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()}
    assert said == {digest([{"a", "b"}, mn.Dense([[1.0]], [0.0]), {"x": 1}])}


def test_what_has_no_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finished parts cannot be kept"):
        digest(object())
