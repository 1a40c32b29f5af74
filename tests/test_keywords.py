"""A misspelt keyword argument of a public function or class is an error that suggests the right one."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch

import mipnet as mn
from mipnet import testing
from mipnet.errors import ArgumentError, InputError

READERS = ["from_torch", "from_sklearn", "from_onnx", "read", "load", "read_vnnlib"]
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


NETWORK = mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2)))])
MISTAKEN = {
    "network": (torch.nn.Linear(2, 2), r"was given a Linear as `network`; expected a network: write `mn\.from_torch"),
    "module": (NETWORK, r"was given a Network as `module`; expected a torch\.nn\.Module"),
    "formulation": ("frozen", r"was given 'frozen' as `formulation`; expected a mapping .*such as \{'relu': 'frozen'\}"),
}
RESULTS = ("MipnetError", "Bounds", "Compressed", "Encoding", "Explained", "Feature", "Status", "encoding", "compress")
"""What users do not call with a network or a formulation of their own; and `compress`, which takes networks and modules."""

MODULES_TOO = ("add_network", "add_predictor")
"""What takes a module in place of a network."""

TAKERS = [
    (name, argument)
    for name in mn.__all__
    if callable(target := getattr(mn, name)) and name not in RESULTS
    for argument in MISTAKEN
    if argument in signature(target).parameters and not (argument == "network" and name in MODULES_TOO)
]


@pytest.mark.parametrize(("name", "argument"), TAKERS)
def test_a_module_is_no_network_and_a_word_is_no_formulation(name: str, argument: str) -> None:
    given, words = MISTAKEN[argument]
    with pytest.raises(InputError, match=words) as caught:
        getattr(mn, name)(**{argument: given})
    assert "\n" not in str(caught.value)


def test_positions_are_counted() -> None:
    images = torch.zeros(3, 2)
    for call in (
        lambda: mn.prune(NETWORK, None),
        lambda: mn.encode(torch.nn.ReLU(), mn.Samples(images)),
        lambda: mn.agree(NETWORK, torch.nn.ReLU(), mn.Samples(images)),
        lambda: mn.importance(NETWORK, images, [0, 1, 0], formulation="frozen"),
        lambda: mn.export(NETWORK, "net.onnx", images),
    ):
        with pytest.raises(InputError, match=r"was given .* as `(module|network|second|formulation)`"):
            call()
