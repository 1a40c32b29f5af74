"""A rival is one file, or one decorated function of a user: it is found, compared, and named in YAML files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.app.files.base import load_as
from mipnet.app.files.compare_file import CompareFile
from mipnet.errors import ArgumentError, InputError, SpecError
from mipnet.pruning.rivals import registry
from mipnet.pruning.rivals.registry import RIVALS, usable
from mipnet.pruning.smaller.ranking import same_counts
from tests.pruning.nets import case, mlp

ROOT = Path(__file__).parents[3]
NAMES = ["random", "magnitude", "activation", "taylor", "taylor-2019", "fisher", "snip", "sipp", "sipp-random", "sipp-hybrid"]
NAMES += ["pfp", "pfp-random", "pfp-top", "group", "torch-pruning"]

FILE = '''"""Scores by position."""

import numpy as np
import xarray as xr

from mipnet.pruning.rivals.registry import rival


@rival("position", about="the last unit first")
def position(network, gates, images, labels, *, seed=0):
    return xr.Dataset({gate.name: (gate.dim, np.arange(gate.units, dtype=float)) for gate in gates})
'''


@pytest.fixture
def mine() -> Iterator[str]:
    """A rival of a user, by the bias of a unit, which is forgotten after the test."""
    known = dict(RIVALS)
    for name in set(known) - set(NAMES):  # those that other tests have registered
        del registry._registered[name]

    @mn.rival("mine", about="the bias of a unit", normalize="max")
    def bias(network, gates, images, labels, *, seed=0, sign=1.0):
        return xr.Dataset({gate.name: (gate.dim, sign * network[gate.nodes[0]].layer.bias.numpy()) for gate in gates})

    yield "mine"
    registry._registered.clear()
    registry._registered.update(known)


def test_rivals_come_in_their_order_and_a_users_own_last(mine: str) -> None:
    assert list(RIVALS) == [*NAMES, mine]
    assert len(RIVALS) == 1 + len(NAMES)
    assert usable()[-1] == mine
    assert RIVALS[mine].about == "the bias of a unit"


def test_a_rival_from_outside_is_compared(mine: str) -> None:
    network, gates, images, labels = case(mlp, samples=60)
    seen, holdout = mn.LabelledImages(images[:30], labels[:30]), mn.LabelledImages(images[30:], labels[30:])
    half = np.random.default_rng(0)
    ours = xr.Dataset({gate.name: (gate.dim, half.permutation(np.arange(gate.units) < 4)) for gate in gates})
    table = mn.compare(network, gates, ours, seen, holdout, rivals=[mine, "random"])
    by_bias = xr.Dataset({gate.name: (gate.dim, network[gate.name].layer.bias.numpy()) for gate in gates})
    found = next(row for row in table.rows if (row.rival, row.ranking) == (mine, "layers"))
    assert found.accuracy == mn.accuracy(network, holdout.images, holdout.labels, gates, same_counts(gates, by_bias, ours))
    settings = mn.ComparisonSettings(options={mine: {"sign": -1.0}})
    turned = next(
        row for row in mn.compare(network, gates, ours, seen, holdout, rivals=[mine], settings=settings).rows if row.rival == mine
    )
    expected = mn.accuracy(network, holdout.images, holdout.labels, gates, same_counts(gates, -by_bias, ours))
    assert turned.accuracy == expected
    with pytest.raises(ArgumentError, match=r"has no argument `sing`; did you mean `sign`\?"):
        RIVALS[mine].scores(network, gates, images, labels, options={"sing": 1.0})


def test_a_yaml_file_names_a_rival_from_outside(mine: str, tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(f"mipnet: 1\ntask: compare\nscores: runs/digits\ncompare: {{rivals: [{mine}, random]}}\n")
    assert load_as(CompareFile, file).compare.rivals == (mine, "random")
    file.write_text(file.read_text().replace(mine, "yours"))
    with pytest.raises(SpecError, match="no rival is called `yours`"):
        load_as(CompareFile, file)


def test_a_name_belongs_to_one_function(mine: str) -> None:
    def other(network, gates, images, labels, *, seed=0):
        raise AssertionError

    with pytest.raises(InputError, match=r"bias` is registered as rival `mine`; choose another name"):
        mn.rival(mine, about="another one")(other)
    first = RIVALS[mine].score
    mn.rival(mine, about="the same function, registered again")(first)
    assert RIVALS[mine].about == "the same function, registered again"


@pytest.mark.sweep
def test_a_file_in_the_package_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mipnet", tmp_path / "mipnet", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mipnet" / "pruning" / "rivals" / "scores" / "position.py").write_text(FILE)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import mipnet as mn; assert mn.__file__.startswith(sys.argv[1]); print(*mn.RIVALS)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == [*NAMES, "position"], done.stderr


@pytest.mark.sweep
def test_the_name_of_a_rival_of_mipnet_is_refused_before_these_are_read() -> None:
    code = (
        "import mipnet as mn\n"
        "try:\n"
        "    mn.rival('magnitude', about='mine')(lambda network, gates, images, labels, *, seed=0: None)\n"
        "except mn.MipnetError as error:\n"
        "    print(error)\n"
        "print('magnitude' in mn.RIVALS)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "is registered as rival `magnitude`; choose another name" in done.stdout
    assert done.stdout.endswith("True\n")
