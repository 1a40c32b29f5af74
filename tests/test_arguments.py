"""Arguments of the wrong kind: every public function answers with one line that says what was given and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn

MODULE = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
NET = mn.from_torch(MODULE, torch.zeros(1, 4))
BOX = mn.Box(np.zeros((1, 4)), np.ones((1, 4)))
X = np.random.default_rng(0).random((6, 4))
Y = np.arange(6) % 2

INTERVAL = mn.Interval(torch.zeros(1, 4), torch.ones(1, 4))

ODD = {"None": None, "a word": "x", "NaN": float("nan"), "a list": [1], "a mapping": {}, "-1": -1, "True": True, "an array": X}

CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "encode.network": (lambda v: mn.encode(v, BOX), "`network`; expected a network"),
    "encode.region": (lambda v: mn.encode(NET, v), "`region`; expected an input set, such as `mn.Box"),
    "encode.formulation": (lambda v: mn.encode(NET, BOX, formulation=v), "expected a mapping"),
    "propagate.network": (lambda v: mn.propagate(v, BOX), "`network`; expected a network"),
    "propagate.region": (lambda v: mn.propagate(NET, v), "`region`; expected an input set"),
    "propagate.method": (lambda v: mn.propagate(NET, BOX, method=v), "the method is .*; expected one of interval, crown, alpha"),
    "reach.network": (lambda v: mn.reach(v, BOX), "expected a network, as `mn.read` and `mn.from_torch` return"),
    "reach.region": (lambda v: mn.reach(NET, v), "expected an input set"),
    "reach.seed": (lambda v: mn.reach(NET, BOX, seed=v), "`seed`; expected a whole number of at least 0"),
    "agree.second": (lambda v: mn.agree(NET, v, BOX), "`second`; expected a network"),
    "compress": (lambda v: mn.compress(v, BOX), "expected a network, .* or a torch.nn.Module"),
    "find_gates": (lambda v: mn.find_gates(v), "expected a network"),
    "importance.network": (lambda v: mn.importance(v, X, Y), "expected a network"),
    "importance.labels": (lambda v: mn.importance(NET, X, v), "label"),
    "importance.formulation": (lambda v: mn.importance(NET, X, Y, formulation=v), "expected a mapping"),
    "solve": (lambda v: mn.solve(v), "expected an encoding, as `mn.encode` returns, or a linopy model"),
    "verify.network": (lambda v: mn.verify(v, None), "expected a network"),  # type: ignore[arg-type]
    "verify.question": (lambda v: mn.verify(NET, v), "expected a property, as `mn.read_vnnlib`"),
    "read": (lambda v: mn.read(v), "expected a path|no suffix"),
    "from_onnx": (lambda v: mn.from_onnx(v), "expected a path|no file"),
    "read_vnnlib": (lambda v: mn.read_vnnlib(v), "expected a path|no file"),
    "from_torch": (lambda v: mn.from_torch(v, torch.zeros(1, 4)), "expected a torch.nn.Module"),
    "export.path": (lambda v: mn.export(MODULE, v, torch.zeros(1, 4)), "expected a path|no suffix"),
    "get_backend": (lambda v: mn.get_backend(v), "backend"),
    "Interval": (lambda v: mn.Interval(v, v), "as `lower`; expected a torch.Tensor"),
    "interval.layer": (lambda v: mn.interval(v, INTERVAL), "expected a layer, such as `mn.ReLU"),
    "interval.x": (lambda v: mn.interval(mn.ReLU(), v), "expected `mn.Interval"),
    "lines": (lambda v: mn.lines(mn.ReLU(), v), "expected `mn.Interval"),
    "backward": (lambda v: mn.backward(mn.ReLU(), v, INTERVAL), "expected a torch.Tensor"),
    "backward.x": (lambda v: mn.backward(mn.ReLU(), torch.zeros(1, 4), v), "expected `mn.Interval"),
    "linear_map": (lambda v: mn.linear_map(v, (4,)), "expected a layer"),
    "keep_parts": (lambda v: mn.keep_parts(v), "expected a path"),
    "Oracle.of": (lambda v: mn.Oracle.of(v), "expected a network"),
}
TAKEN = {"keep_parts": ("a word",), "encode.formulation": ("None", "a mapping"), "importance.formulation": ("None", "a mapping")}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("call", CALLS)
def test_an_argument_of_the_wrong_kind(call: str, odd: str) -> None:
    function, message = CALLS[call]
    if odd in TAKEN.get(call, ()):
        function(ODD[odd])
        return
    with pytest.raises(mn.MipnetError, match=message) as caught:
        function(ODD[odd])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_module_in_place_of_an_encoding() -> None:
    for given in (MODULE, NET, BOX):
        with pytest.raises(mn.MipnetError, match="expected an encoding"):
            mn.solve(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [torch.tensor(X), pd.DataFrame(X), xr.DataArray(X), X.tolist()], ids=lambda v: type(v).__name__)
def test_arrays_of_other_libraries_are_arrays(images: Any) -> None:
    assert mn.accuracy(NET, images, Y) == mn.accuracy(NET, X, Y)
    wanted = mn.importance(NET, X, Y).result.objective
    assert mn.importance(NET, images, Y).result.objective == pytest.approx(wanted)


@pytest.mark.parametrize(
    "images",
    [X[:, :3], X[0], X * np.nan, X.astype(str), X.astype(object), X * 1j, X[:0], None, 3.0, "x"],
    ids=["shape", "one image", "NaN", "strings", "objects", "complex", "none", "None", "a number", "a word"],
)
def test_images_that_are_none(images: Any) -> None:
    if isinstance(images, np.ndarray) and images.dtype == object:
        return  # numbers in an array of objects are numbers
    with pytest.raises(mn.MipnetError) as caught:
        mn.importance(NET, images, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [Y + 0.5, Y - 1, Y + 5, Y[:3], Y[:, None], Y.astype(str), Y * np.nan, None, "x"])
def test_labels_that_are_none(labels: Any) -> None:
    with pytest.raises(mn.MipnetError) as caught:
        mn.importance(NET, X, labels)
    assert "\n" not in str(caught.value)
