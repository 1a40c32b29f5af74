"""Imports keep the contracts of pyproject.toml, and `import mipnet` loads neither a solver nor other heavy packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mipnet

ROOT = Path(__file__).parents[1]
HEAVY = {"highspy", "pyscipopt", "rich", "typer", "matplotlib", "onnx", "onnxruntime", "dask", "distributed"}

needs_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the contracts stand in pyproject.toml of a checkout")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """lint-imports on the two source roots below ``root``, in a process of its own (it keeps a graph of imports)."""
    program = (
        "import sys; sys.path[:0] = [sys.argv[1] + '/backends', sys.argv[1]];"
        "from importlinter.cli import lint_imports;"
        "sys.exit(lint_imports(config_filename=sys.argv[1] + '/pyproject.toml', no_cache=True, show_timings=False))"
    )
    return subprocess.run([sys.executable, "-c", program, str(root)], cwd=root, capture_output=True, text=True, timeout=240)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources in a folder where something may be planted."""
    for folder in ("mipnet", "backends"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@needs_checkout
def test_every_contract_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_checkout
@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("mipnet/network/sets.py", "import highspy", "the core knows no solver"),
        ("mipnet/formulations/block.py", "import mipnet_highs", "the core knows no solver"),
        ("mipnet/backend/contract.py", "from rich import print", "only the application draws"),
        ("mipnet/arrays.py", "import torch", "loads neither torch nor linopy"),
        ("mipnet/app/runs/solve.py", "from mipnet.app.screen import tables", "in the application"),
        ("mipnet/network/graph.py", "from mipnet.layers import dense", "imports go one way"),
        ("mipnet/readers/sexpr.py", "from mipnet.readers import vnnlib", "no circles"),
        ("mipnet/readers/onnx_call.py", "if TYPE_CHECKING: from mipnet.readers.onnx_graph import OnnxReader", "no circles"),
        ("mipnet/pruning/smaller/masks.py", "from mipnet.pruning import training", "no circles"),
        ("backends/mipnet_scip/native.py", "from mipnet_scip import adapter", "no circles"),
        ("backends/mipnet_highs/options.py", "from mipnet.backend.contract import Limits", "a backend imports names of the contract"),
        ("backends/mipnet_scip/__init__.py", "from mipnet.formulations import block", "a backend imports mipnet.backend,"),
        ("backends/mipnet_linopy/solvers.py", "from mipnet.solving import engine", "a backend imports mipnet.backend,"),
    ],
)
def test_a_planted_import_breaks_its_contract(copy: Path, file: str, line: str, contract: str) -> None:
    with (copy / file).open("a") as stream:
        stream.write(f"\n{line}  # planted\n")
    done = lint(copy)
    assert done.returncode != 0, done.stdout
    broken = done.stdout.split("Broken contracts")[-1]
    assert contract in " ".join(broken.split())


@needs_checkout
@pytest.mark.parametrize(("module", "contract"), [("mipnet/extra.py", "imports go one way"), ("mipnet/app/extra.py", "in the application")])
def test_a_module_outside_the_contract_is_found(copy: Path, module: str, contract: str) -> None:
    (copy / module).write_text('"""A module that no row names."""\n')
    done = lint(copy)
    assert done.returncode != 0, done.stdout
    assert contract in " ".join(done.stdout.split("Broken contracts")[-1].split())


@needs_checkout
def test_every_backend_is_in_the_contracts_and_checked_for_types() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages = {path.parent.name for path in (ROOT / "backends").glob("*/__init__.py")}
    contracts = {each["id"]: each for each in settings["importlinter"]["contracts"]}
    assert packages <= set(settings["mypy"]["packages"])
    assert packages <= set(settings["importlinter"]["root_packages"])
    assert packages <= set(contracts["solvers"]["forbidden_modules"])
    for name in ("facade", "backends"):
        assert packages <= set(contracts[name]["source_modules"]), name


@needs_checkout
def test_the_rooms_are_few_and_so_are_the_modules_beside_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    assert len(next(each for each in contracts if each["id"] == "direction")["layers"]) <= 10
    beside = [path.name for path in (ROOT / "mipnet").glob("*.py")]
    assert len(beside) <= 5, beside


def test_importing_mipnet_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import mipnet"], capture_output=True, text=True, timeout=240, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "mipnet" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["", ".contract", ".program", ".checks", ".progress", ".rewrites"])
def test_the_contract_of_a_backend_is_light(module: str) -> None:
    code = f"import sys, mipnet.backend{module}; print(*sorted({{'torch', 'linopy', 'xarray', 'scipy.special'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_exists() -> None:
    assert mipnet.__all__
    assert len(set(mipnet.__all__)) == len(mipnet.__all__)
    for name in mipnet.__all__:
        assert getattr(mipnet, name) is not None, name
