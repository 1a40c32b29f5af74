"""Settings, input sets, layers and functions with settings: what is no number, no truth value or no such object is named in one line."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.errors.argument_kinds import is_number, is_whole, wrong_kind
from mipnet.pruning.prune_while_training import PruningSchedule
from mipnet.pruning.training import evaluate
from tests.test_arguments import BOX, MODULE, NET, X, Y

GATES = mn.find_gates(NET)
IMAGES = mn.LabelledImages(X, Y)
WINDOW = mn.Window((2, 2), (2, 2))
ONES = torch.ones(2, 1, 2, 2)
SETTINGS = mn.TrainingSettings(epochs=1, batch=4)


def masks() -> Any:
    import xarray as xr

    return xr.Dataset({GATES[0].name: ((GATES[0].dim,), np.array([True, False, True]))})


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "L1": (mn.L1, {"centre": X[:1], "radius": 0.1, "lower": -1.0, "upper": 2.0}),
    "L2": (mn.L2, {"centre": X[:1], "radius": 0.1, "lower": -1.0, "upper": 2.0}),
    "LInf": (mn.LInf, {"centre": X[:1], "radius": 0.1, "lower": -1.0, "upper": 2.0}),
    "Ball": (mn.Ball, {"centre": X[:1], "radius": 0.1, "norm": "l1"}),
    "Box": (mn.Box, {"lower": X, "upper": X + 1, "ball": None}),
    "Box.contains": (BOX.contains, {"x": X[:1], "tolerance": 1e-6}),
    "Box.fit": (BOX.fit, {"shape": (4,)}),
    "Box.only": (BOX.only, {"k": 0}),
    "Box.widen": (BOX.widen, {"epsilon": 0.1}),
    "Samples": (mn.Samples, {"images": X}),
    "Case": (mn.Case, {"region": BOX, "clauses": (), "open_ends": None}),
    "Clause": (mn.Clause, {"matrix": np.ones((1, 2)), "rhs": np.zeros(1), "strict": False}),
    "Classes": (mn.Classes, {"label": 0, "targets": [1]}),
    "LabelledImages": (mn.LabelledImages, {"images": X, "labels": Y}),
    "Importance": (mn.Importance, {"images": X, "labels": Y, "objective": mn.Objective(), "gates": "all", "bounds": "paper"}),
    "Objective": (mn.Objective, {"weight": 5.0, "loss": mn.Loss(), "normalize": "units", "layers": "paper"}),
    "Loss": (mn.Loss, {"name": "margin", "margin": 1.0}),
    "PaperBounds": (mn.PaperBounds, {"pattern": "free", "epsilon": 1e-5}),
    "UserBounds": (mn.UserBounds, {"by_node": {}, "replace": False}),
    "Limits": (mn.Limits, {"time": 1.0, "gap": 1e-4, "nodes": None, "memory": None, "bound_stop": None, "gap_abs": 0.0}),
    "MipSettings": (mn.MipSettings, {"backend": "highs", "options": None, "formulation": None}),
    "DistortionSettings": (mn.DistortionSettings, {"backend": "highs", "options": None, "gap": 1e-3, "seed": 0}),
    "SolveSettings": (mn.SolveSettings, {"backend": "highs", "options": None, "start": "forward"}),
    "ComparisonSettings": (
        mn.ComparisonSettings,
        {"name": "mip", "normalize": "none", "options": {}, "repeats": 5, "seed": 0, "on_rival": None},
    ),
    "TrainingSettings": (mn.TrainingSettings, {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "batch": 4, "seed": 0, "on_epoch": None}),
    "PruningSchedule": (PruningSchedule, {"every": 1, "at_start": False, "until": None}),
    "TighteningRun": (mn.TighteningRun, {"workers": 0, "on_layer": None}),
    "Oracle": (mn.Oracle, {"name": "torch", "run": NET.outputs, "dtype": np.float64, "at_once": 64}),
    "FinalSoftmax": (mn.FinalSoftmax, {"kind": "softmax", "axes": (0,)}),
    "Window": (mn.Window, {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1), "ceil": False}),
    "Conv2d": (mn.Conv2d, {"weight": ONES, "bias": None, "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}),
    "Dense": (mn.Dense, {"weight": torch.ones(2, 3), "bias": None}),
    "Clip": (mn.Clip, {"low": 0.0, "high": 1.0}),
    "LeakyReLU": (mn.LeakyReLU, {"slope": 0.1}),
    "AvgPool2d": (mn.AvgPool2d, {"window": WINDOW, "count_padding": True, "divisor": None}),
    "MaxPool2d": (mn.MaxPool2d, {"window": WINDOW}),
    "AdaptiveAvgPool2d": (mn.AdaptiveAvgPool2d, {"out": (2, 2)}),
    "Permute": (mn.Permute, {"order": (1, 0)}),
    "Select": (mn.Select, {"elements": (1, 0)}),
    "Reshape": (mn.Reshape, {"target": (2, 2)}),
    "Concat": (mn.Concat, {"axis": 0}),
    "Gate": (mn.Gate, {"name": "a", "units": 3, "dim": "u", "nodes": ("1",), "sites": ("1",)}),
    "Network.build": (mn.Network.build, {"input_shape": (4,), "layers": [("a", mn.Dense(torch.ones(2, 4)))]}),
    "train": (
        lambda module=MODULE, **given: mn.train(deepcopy(module), X, given.pop("labels", Y), **given),
        {"module": MODULE, "labels": Y, "epochs": 0, "lr": 0.01, "seed": 0, "masks": None, "settings": SETTINGS},
    ),
    "fine_tune": (
        lambda module=MODULE, **given: mn.fine_tune(module, X, Y, **given),
        {"module": MODULE, "epochs": 0, "lr": 0.01, "seed": 0, "masks": None, "settings": SETTINGS},
    ),
    "evaluate": (evaluate, {"module": MODULE, "images": X, "labels": Y, "batch": 4}),
    "compare": (
        lambda **given: mn.compare(
            NET, **{"gates": GATES, "ours": masks(), "images": IMAGES, "holdout": IMAGES, "rivals": ["random"], **given}
        ),
        {"gates": GATES, "ours": masks(), "images": IMAGES, "holdout": IMAGES, "rivals": ["random"], "shares": (), "settings": None},
    ),
    "agree": (mn.agree, {"within": None, "time_limit": 1.0, "tolerance": 1e-4}),
    "reach": (mn.reach, {"time_limit": 1.0, "tolerance": 1e-4}),
    "maximum_margin": (mn.maximum_margin, {"label": 0, "gap": 1e-4}),
    "minimum_distortion": (mn.minimum_distortion, {"label": 0, "upper": 0.1, "norm": "linf", "clip": (0.0, 1.0)}),
    "robustness_property": (mn.robustness_property, {"label": 0, "radius": 0.1, "norm": "linf", "clip": (0.0, 1.0)}),
    "encode": (mn.encode, {"bounds": "sound", "binary_gates": False, "epsilon": 1e-5}),
    "make_masks": (mn.make_masks, {"threshold": 0.1}),
    "random_masks": (mn.random_masks, {"masks": masks(), "seed": 0}),
    "spaced_weights": (mn.spaced_weights, {"first": 1.0, "last": 9.0, "points": 3}),
    "memory_limit": (lambda limit: mn.memory_limit(limit).__enter__(), {"limit": "4 GB"}),
}
"""Functions with arguments that are right."""

REST: dict[str, Any] = {"network": NET, "first": NET, "second": NET, "region": BOX, "x": X[0], "images": X, "gates": GATES}
REST |= {"labels": Y, "scores": masks().astype(float)}
"""Arguments that a call needs besides, by their names."""

ODD: dict[str, Any] = {
    "None": None,
    "a word": "x",
    "nothing": "",
    "NaN": float("nan"),
    "infinite": float("inf"),
    "-1": -1,
    "0": 0,
    "half": 0.5,
    "True": True,
    "False": False,
    "complex": 1j,
    "400 digits": 10**400,
    "a list": [1],
    "an empty list": [],
    "a list of words": ["x", "y"],
    "a mixed tuple": ("a", 1),
    "a mapping": {},
    "an object": object(),
    "an array": np.ones((2, 3)),
    "an array with NaN": np.full((1, 4), np.nan),
    "truth values": np.ones((1, 4), dtype=bool),
}
NEVER = ("complex", "400 digits", "a mixed tuple", "an object", "truth values")
"""What fits no argument; the calls of `CALLS` take none of them."""


def given(call: str, argument: str, value: Any) -> Any:
    function, right = CALLS[call]
    needed = {name: REST[name] for name in signature(function).parameters if name in REST}
    return function(**{**needed, **right, argument: value})


def refusal(call: str, argument: str, value: Any) -> str | None:
    """What mipnet says of a value; None if it takes it.  Errors of other libraries pass through."""
    try:
        given(call, argument, value)
    except mn.MipnetError as error:
        return str(error)
    return None


def check_refusals(call: str, odd: str) -> None:
    for argument in CALLS[call][1]:
        message = refusal(call, argument, ODD[odd])
        if message is None:
            assert odd not in NEVER, f"{argument} was taken"
            continue
        assert "\n" not in message
        assert len(message) < 400
        assert odd not in NEVER or "expected" in message, message


@pytest.mark.parametrize("call", CALLS)
def test_the_right_arguments_are_taken(call: str) -> None:
    if "time_limit" in CALLS[call][1] or call in ("maximum_margin", "minimum_distortion", "encode", "compare", "train", "fine_tune"):
        return  # what they do is tested elsewhere
    given(call, *next(iter(CALLS[call][1].items())))


@pytest.mark.parametrize("call", CALLS)
def test_one_line_for_an_argument_that_fits_nowhere(call: str) -> None:
    check_refusals(call, "complex")


@pytest.mark.sweep
@pytest.mark.parametrize("call", CALLS)
def test_one_line_for_every_argument_that_is_wrong(call: str) -> None:
    for odd in ODD:
        check_refusals(call, odd)


NUMBERS = [
    (mn.Objective, "weight"),
    (mn.Loss, "margin"),
    (mn.PaperBounds, "epsilon"),
    (mn.Limits, "time"),
    (mn.TrainingSettings, "lr"),
    (mn.TrainingSettings, "epochs"),
    (mn.ComparisonSettings, "repeats"),
    (mn.DistortionSettings, "gap"),
    (mn.TighteningRun, "workers"),
    (mn.Clip, "low"),
    (mn.LeakyReLU, "slope"),
    (mn.Concat, "axis"),
]


@pytest.mark.parametrize(("target", "name"), NUMBERS, ids=lambda each: getattr(each, "__name__", each))
@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True)], ids=["bool", "numpy", "torch"])
def test_truth_values_are_no_numbers(target: Any, name: str, truth: Any) -> None:
    with pytest.raises(mn.MipnetError, match=r"expected a .*number"):
        target(**{name: truth})


OUT_OF_RANGE = [
    (mn.ComparisonSettings, "repeats", 0),
    (mn.ComparisonSettings, "seed", -1),
    (mn.TrainingSettings, "epochs", -1),
    (mn.TrainingSettings, "batch", 0),
    (mn.TrainingSettings, "lr", 0.0),
    (mn.TrainingSettings, "lr", float("inf")),
    (mn.Objective, "weight", -1.0),
    (mn.Loss, "margin", float("inf")),
    (mn.PaperBounds, "epsilon", -1e-9),
    (mn.DistortionSettings, "gap", -1.0),
    (mn.TighteningRun, "workers", -1),
    (mn.Limits, "gap_abs", -1.0),
    (mn.AdaptiveAvgPool2d, "out", (0, 1)),
]


@pytest.mark.parametrize(("target", "name", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range(target: Any, name: str, value: Any) -> None:
    with pytest.raises(mn.MipnetError, match=r"expected (a|two) .*(number|numbers)( of at least [01]| above 0)"):
        target(**{name: value})


@pytest.mark.parametrize("make", [lambda v: mn.Box(v, v), mn.Samples, mn.Dense, lambda v: mn.LInf(v, 0.1), lambda v: mn.LInf(X[:1], v)])
def test_arrays_of_truth_values_are_no_numbers(make: Callable[[Any], Any]) -> None:
    for truth in (True, np.ones((1, 4), dtype=bool), torch.ones(1, 4, dtype=torch.bool)):
        with pytest.raises(mn.MipnetError, match=r"holds True and False; expected real numbers|expected .* number|of type bool"):
            make(truth)


def test_numbers_of_other_classes_are_numbers() -> None:
    for number in (1, 1.5, np.float32(1), np.int8(1), np.array(1.0), torch.tensor(1.0), float("inf")):
        assert is_number(number)
    for other in (True, np.True_, float("nan"), "1", 1j, np.complex128(1), [1], np.ones(1), None, 10**400):
        assert not is_number(other)
    assert is_whole(np.int8(1))
    assert is_whole(torch.tensor(1))
    assert not is_whole(1.0)
    assert not is_whole(10**400)


def test_the_words_list_every_kind_that_is_taken() -> None:
    assert wrong_kind("label", "int | Classes | None", 0.5) == "a whole number, `mn.Classes(...)`, or None"
    assert wrong_kind("gates", "str | Sequence[str]", [1]) == "a string, or a list of strings"
    assert wrong_kind("channels", "Literal['first', 'last'] | None", "x") == "`first` or `last`, or None"
    assert wrong_kind("images", "ArrayLike | None", object()) is None, "functions check arrays themselves"
    assert wrong_kind("gates", "Sequence[Gate]", ()) is None
