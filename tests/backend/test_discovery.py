"""Backends are found by entry points; a broken, missing or duplicate one does not affect the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import mipnet_highs.adapter as adapter
import pytest

from mipnet.backend import contract
from mipnet.backend import installed_backends as module
from mipnet.errors import BackendError, BackendMissing

HIGHS = EntryPoint("highs", "mipnet_highs:HiGHS", module.ENTRY_POINT_GROUP)


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def announce(*points: EntryPoint) -> None:
        monkeypatch.setattr(module, "entry_points", lambda group: points)
        module._announced.cache_clear()

    yield announce
    module._announced.cache_clear()


def test_unknown_name_lists_the_known(announce) -> None:
    announce(HIGHS)
    with pytest.raises(BackendMissing, match=r"no backend is called `gurobi`; known: highs"):
        module.get_backend("gurobi")


def test_nothing_announced(announce) -> None:
    announce()
    assert module.backends() == []
    with pytest.raises(BackendMissing, match="is mipnet installed"):
        module.get_backend("highs")


def test_broken_plugins_are_listed_with_their_problem(announce) -> None:
    announce(
        HIGHS,
        EntryPoint("gone", "no_such_package:Solver", module.ENTRY_POINT_GROUP),
        EntryPoint("wrong", "mipnet.backend:NoSuchName", module.ENTRY_POINT_GROUP),
        EntryPoint("abstract", "mipnet.backend:Backend", module.ENTRY_POINT_GROUP),
    )
    found = {f.name: f for f in module.backends()}
    assert found["highs"].problem == ""
    assert "ModuleNotFoundError" in found["gone"].problem
    assert "AttributeError" in found["wrong"].problem
    assert "TypeError" in found["abstract"].problem
    with pytest.raises(BackendMissing, match=r"backend `gone`: cannot be loaded: ModuleNotFoundError"):
        module.get_backend("gone")
    assert module.get_backend("highs").name == "highs"


def test_missing_solver_says_how_to_get_it(announce, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(HIGHS)
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    assert module.backends()[0].problem == "`highspy` is not installed: pip install highspy"
    with pytest.raises(BackendMissing, match="pip install highspy"):
        module.get_backend("highs")


def test_an_old_solver_says_how_to_get_a_newer_one(announce, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(HIGHS)
    monkeypatch.setattr(adapter, "highs_version", lambda: (1, 15))
    says = "`highspy` 1.15 is installed, which may prove what is wrong; mipnet needs 1.16 or newer: pip install --upgrade highspy"
    assert module.backends()[0].problem == says
    with pytest.raises(BackendMissing, match=r"backend `highs`: `highspy` 1\.15 is installed"):
        module.get_backend("highs")
    monkeypatch.setattr(adapter, "highs_version", lambda: (2, 0))
    assert module.backends()[0].problem == ""


def test_two_packages_with_one_name(announce) -> None:
    announce(HIGHS, EntryPoint("highs", "other:HiGHS", module.ENTRY_POINT_GROUP))
    with pytest.raises(BackendError, match=r"two packages announce a backend `highs`: mipnet_highs:HiGHS and other:HiGHS"):
        module.backends()


def test_the_same_entry_point_twice_is_one(announce) -> None:
    announce(HIGHS, HIGHS)
    assert [f.name for f in module.backends()] == ["highs"]


def test_importing_the_contract_loads_no_adapter() -> None:
    adapters = "('mipnet_highs', 'mipnet_scip', 'pyscipopt')"
    code = f"import sys, mipnet.backend, mipnet.backend.checks; print([m for m in {adapters} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
