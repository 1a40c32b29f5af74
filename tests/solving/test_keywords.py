"""A misspelt keyword argument of a public function or class is an error that names the function and the right word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import ArgumentError

CALLS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "encode": (mn.encode, "formulations", "formulation"),
    "add_network": (mn.add_network, "prefixes", "prefix"),
    "solve": (mn.solve, "timelimit", "time_limit"),
    "open_problem": (mn.open_problem, "option", "options"),
    "OpenProblem.solve": (mn.OpenProblem.solve, "mipgap", "mip_gap"),
    "OpenProblem.set_objective": (mn.OpenProblem.set_objective, "sens", "sense"),
    "OpenProblem.set_bounds": (mn.OpenProblem.set_bounds, "uper", "upper"),
    "Importance.solve": (mn.Importance.solve, "time_limt", "time_limit"),
    "Network.build": (mn.Network.build, "notess", "notes"),
    "Network.forward": (mn.Network.forward, "batches", "batch"),
    "Encoding.point": (mn.Encoding.point, "score", "scores"),
    "Encoding.distance": (mn.Encoding.distance, "center", "centre"),
    "Bounds.check": (mn.Bounds.check, "gate", "gates"),
    "Block.variable": (mn.Block.variable, "binry", "binary"),
    "Block.rows": (mn.Block.rows, "rights", "right"),
    "Box.contains": (mn.Box.contains, "tolerence", "tolerance"),
    "explain": (mn.explain, "backends", "backend"),
    "encoding": (mn.encoding, "relax", "relaxed"),
    "MipSettings": (mn.MipSettings, "formulations", "formulation"),
    "Loss": (mn.Loss, "margins", "margin"),
    "Window": (mn.Window, "strides", "stride"),
    "Dense": (mn.Dense, "weights", "weight"),
    "Conv2d": (mn.Conv2d, "group", "groups"),
    "BatchNorm": (mn.BatchNorm, "factors", "factor"),
    "Scale": (mn.Scale, "shifts", "shift"),
    "LeakyReLU": (mn.LeakyReLU, "slopes", "slope"),
    "Clip": (mn.Clip, "lows", "low"),
    "Add": (mn.Add, "coefficient", "coefficients"),
    "Concat": (mn.Concat, "axes", "axis"),
    "Reshape": (mn.Reshape, "targets", "target"),
    "Permute": (mn.Permute, "orders", "order"),
    "MaxPool2d": (mn.MaxPool2d, "windows", "window"),
    "AvgPool2d": (mn.AvgPool2d, "divisors", "divisor"),
    "AdaptiveAvgPool2d": (mn.AdaptiveAvgPool2d, "outs", "out"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_keyword_is_named_with_the_right_one(name: str) -> None:
    function, given, expected = CALLS[name]
    with pytest.raises(ArgumentError, match=f"^`{name}` has no argument `{given}`; did you mean `{expected}`\\?$"):
        function(**{given: 1})


def test_a_keyword_that_is_like_no_other_lists_all() -> None:
    with pytest.raises(ArgumentError, match=r"^`Loss` has no argument `zzz`; expected one of name, margin$"):
        mn.Loss(**{"zzz": 1})
    with pytest.raises(TypeError, match="missing"):
        mn.Dense()
    assert mn.Dense(weight=np.eye(2)).shape((2,)) == (2,)
