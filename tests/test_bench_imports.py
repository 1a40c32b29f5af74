"""Every module of the benchmarks can be imported, so that a rename elsewhere does not break them unnoticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "tests" / "bench").rglob("*.py"))
BENCH_PACKAGES = {"tests.bench.importance.conic": "cvxpy"}
"""Packages of the extra ``peers`` that a module imports at its top."""


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_benchmarks_is_imported(module: str) -> None:
    if module in BENCH_PACKAGES:
        pytest.importorskip(BENCH_PACKAGES[module])
    importlib.import_module(module.removesuffix(".__init__"))
