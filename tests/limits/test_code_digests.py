"""Digests of functions and classes of the user's tell apart all code that can change a result, and nothing else."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.limits.digests import digest
from mipnet.network.graph import Layer
from mipnet.pruning.rivals.registry import Rival
from mipnet.testing import layers as library_code

SOURCE = """
import functools, helpers_of_a_user
from helpers_of_a_user import shifted
FACTOR = 2.0
NAMES = {"a", "b", "c"}
def helper(x):
    return x * FACTOR
class Base:
    def step(self, x):
        return x - 1
class Mine(Base):
    limit = 5
    def __call__(self, x):
        return self.step(helper(x)) + self.limit
def make(width):
    def inner(x, times=3, *, offset=0):
        return [helper(k * times) + width + offset + (k in NAMES) for k in x]
    return inner
def recursive(x):
    return x if x < 1 else other(x - 1)
def other(x):
    return recursive(x) + 7
def plain(x):
    return shifted(x) + helpers_of_a_user.scaled(x)
score, called = make(4), Mine()
partly, bound = functools.partial(score, times=8), called.step
"""

HELPERS = "def shifted(x):\n    return x + 1\ndef scaled(x):\n    return 2 * x\n"

CHANGES = {
    "body": ("helper(k * times)", "helper(k + times)", "score partly"),
    "constant": ("FACTOR = 2.0", "FACTOR = 2.5", "score partly called Mine bound"),
    "set": ('"b", "c"}', '"b", "d"}', "score partly"),
    "helper": ("return x * FACTOR", "return x / FACTOR", "score partly called Mine bound"),
    "default": ("times=3", "times=4", "score partly"),
    "keyword": ("offset=0", "offset=1", "score partly"),
    "closure": ("make(4)", "make(5)", "score partly"),
    "partial": ("times=8", "times=9", "partly"),
    "base": ("return x - 1", "return x - 2", "called Mine bound"),
    "attribute": ("limit = 5", "limit = 6", "called Mine bound"),
    "callee": ("recursive(x) + 7", "recursive(x) + 8", "recursive other"),
    "imported": ("x + 1", "x + 3", "plain"),
    "of a module": ("2 * x", "3 * x", "plain"),
    "comment": ("return x * FACTOR", "return x * FACTOR  # by two\n", ""),
}
NAMES = ("score", "partly", "called", "Mine", "bound", "recursive", "other", "plain")


def module_of(source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, found)
    exec(compile(source, f"{name}.py", "exec"), vars(found))
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_code_depends_on_changes_its_digest(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, changed = CHANGES[change]
    digests = []
    for edited in (False, True):
        texts = [text.replace(old, new) if edited else text for text in (SOURCE, HELPERS)]
        assert not edited or texts != [SOURCE, HELPERS]
        module_of(texts[1], "helpers_of_a_user", monkeypatch)
        module = module_of(texts[0], "code_of_a_user", monkeypatch)
        digests.append({name: digest(getattr(module, name)) for name in NAMES})
    assert {name for name in NAMES if digests[0][name] != digests[1][name]} == set(changed.split())


LAYERS = """
import torch, mipnet as mn
class Twice(mn.Layer):
    def shape(self, shape):
        return shape
    def forward(self, x):
        return 2 * x
@mn.interval.register
def _(layer: Twice, x):
    return mn.Interval(2 * x.lower, 2 * x.upper)
@mn.encoding(Twice, "own")
def _(layer, block, x):
    return 2 * x
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)
    def forward(self, x):
        return self.fc(x).relu()
"""


@pytest.mark.parametrize(
    ("old", "new", "of"),
    [
        ("return 2 * x\n@", "return x + x\n@", "layer"),
        ("2 * x.lower", "2.5 * x.lower", "layer"),
        ("x):\n    return 2 * x\nclass", "x):\n    return x + x\nclass", "layer"),
        ("self.fc(x).relu()", "self.fc(x).tanh()", "module"),
    ],
)
def test_layers_and_modules_of_the_user(old: str, new: str, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for text in (LAYERS, LAYERS, LAYERS.replace(old, new)):
        module = module_of(text, "layers_of_a_user", monkeypatch)
        torch.manual_seed(0)
        network = mn.Network.build((2,), [("twice", module.Twice()), ("act", mn.ReLU())])
        digests.append({"layer": digest(network), "module": digest(nn.Sequential(module.Net()))})
    assert digests[0] == digests[1]
    assert {name for name in digests[0] if digests[1][name] != digests[2][name]} == {of}


OBJECTS = """
class A{0}:
    def step(self, x):
        return [{1}, x + {0}]
a{0} = A{0}()
"""


def test_objects_that_name_one_another_have_a_digest_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten classes whose methods name an object of each: the code of each is read once."""
    names = ", ".join(f"a{k}" for k in range(10))
    text = "".join(OBJECTS.format(k, names) for k in range(10))
    found = []
    for edited in (text, text, text.replace("x + 7", "x - 7")):
        module = module_of(edited, "objects_of_a_user", monkeypatch)
        found.append([digest(module.a0), digest(module.A3.step), digest([module.a0, {"b": module.A1}])])
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


def test_code_of_libraries_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [digest(each) for each in (library_code.check_layer, mn.ReLU(), np.mean, torch.relu, nn.Linear)]
    monkeypatch.setattr(library_code.check_layer, "__defaults__", (1,))
    monkeypatch.setattr(Layer, "added", lambda self: 1, raising=False)
    assert [digest(each) for each in (library_code.check_layer, mn.ReLU(), np.mean, torch.relu, nn.Linear)] == before


def test_compare_asks_a_rival_of_other_code_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g = np.random.default_rng(0)
    dense = [mn.Dense(g.normal(size=(4, 3)), g.normal(size=4)), mn.Dense(g.normal(size=(2, 4)), g.normal(size=2))]
    network = mn.Network.build((3,), [("a", dense[0]), ("r", mn.ReLU()), ("b", dense[1])])
    images = mn.LabelledImages(g.uniform(size=(12, 3)), g.integers(0, 2, 12))
    gates, asked = mn.find_gates(network), tmp_path / "asked"
    scores = mn.make_masks(network, gates, mn.RIVALS["magnitude"].scores(network, gates, images.images, images.labels), 0.0) * 1.0

    def compared(factor: float) -> mn.Result | Any:
        def own(network: Any, gates: Any, images: Any, labels: Any, *, seed: int = 0) -> Any:
            with asked.open("a") as stream:
                stream.write(f"{factor} ")
            return scores * factor

        monkeypatch.setitem(mn.RIVALS._loaded(), "own", Rival("own", own, "mine"))
        with mn.keep_parts(tmp_path / "parts"):
            return mn.compare(network, gates, scores, images, images, rivals=["own", "magnitude"], shares=[0.3])

    for factor in (1.0, 1.0, -1.0, 1.0):
        compared(factor)
    assert asked.read_text() == "1.0 -1.0 "
