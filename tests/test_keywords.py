"""A misspelt keyword argument of a public function or class is an error that suggests the right one."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

import mipnet as mn
from mipnet import testing
from mipnet.errors import ArgumentError

READERS = ["from_torch", "from_onnx", "read", "load", "read_vnnlib"]
SETS = ["Samples", "LInf", "L1", "L2", "Box", "Ball"]
NETWORKS = ["find_gates", "Node", "Network", "Clause", "Case", "Property"]
PUBLIC = {f"mn.{name}": getattr(mn, name) for name in (*READERS, *SETS, *NETWORKS, "Limits", "get_backend")}
PUBLIC |= {f"testing.{name}": getattr(testing, name) for name in testing.__all__}


@pytest.mark.parametrize("target", PUBLIC.values(), ids=PUBLIC)
def test_a_misspelt_keyword_is_suggested(target: Callable[..., Any]) -> None:
    for name, parameter in signature(target).parameters.items():
        if parameter.kind is not parameter.VAR_POSITIONAL:
            with pytest.raises(ArgumentError, match=rf"`{target.__name__}` has no argument `{name}x`; did you mean `{name}`\?"):
                target(**{f"{name}x": None})


def test_an_unlike_keyword_lists_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"`LInf` has no argument `zzz`; expected one of centre, radius, lower, upper"):
        mn.LInf([[0.0]], zzz=1)
