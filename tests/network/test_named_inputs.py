"""Columns with names stand in the order of a network's input names, wherever a labelled array is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mipnet as mn
from mipnet.pruning.importance.auxiliary_heads import HeadTraining, train_heads
from mipnet.pruning.importance.program import Importance
from mipnet.readers.data import Dataset

NETWORK = mn.Network.build(
    (3,), [("fc1", mn.Dense([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]])), ("relu1", mn.ReLU()), ("fc2", mn.Dense([[1.0, -1.0], [0.5, 2.0]]))]
).with_input_names(["a", "b", "c"])
X = np.array([[0.1, 0.2, 0.7], [0.9, 0.4, 0.3]])
COLUMNS = ["c", "a", "b"]
FRAME = pd.DataFrame(X[:, [2, 0, 1]], columns=COLUMNS)
ARRAY = xr.DataArray(FRAME.to_numpy().T, dims=("feature", "sample"), coords={"feature": COLUMNS})
STRANGE = pd.DataFrame(X, columns=["a", "b", "z"])

ASKED: dict[str, Callable[[Any], Any]] = {
    "forward": NETWORK.forward,
    "outputs": NETWORK.outputs,
    "fixed": lambda x: mn.propagate(NETWORK, mn.Samples(x))["fc2"].lower,
    "box": lambda x: mn.propagate(NETWORK, mn.Box(x - 0.1, x + 0.2))["fc2"].upper,
    "box with one labelled end": lambda x: mn.propagate(NETWORK, mn.Box(x, (X if x is X else FRAME.to_numpy()) + 0.2))["fc2"].upper,
    "linf": lambda x: mn.propagate(NETWORK, mn.LInf(x, 0.1).only(0))["fc2"].upper,
    "l1": lambda x: mn.propagate(NETWORK, mn.L1(x, 0.1, 0, 1))["fc2"].upper,
    "reach": lambda x: mn.reach(NETWORK, mn.LInf(x[:1] if isinstance(x, np.ndarray | pd.DataFrame) else x[:, :1], 0.1)).upper,
    "robustness": lambda x: mn.robustness(NETWORK, _first(x), radius=0.01).bound,
    "accuracy": lambda x: mn.accuracy(NETWORK, x, NETWORK.forward(X).argmax(axis=1)),
    "importance": lambda x: np.asarray(Importance(NETWORK, x, [0, 1]).images),
    "stepwise": lambda x: mn.prune_stepwise(NETWORK, x, [0, 1], shares=[0.3]).loss,
}


def _first(x: Any) -> Any:
    return x.iloc[0] if isinstance(x, pd.DataFrame) else x.isel(sample=0) if isinstance(x, xr.DataArray) else x[0]


@pytest.mark.parametrize("labelled", [FRAME, ARRAY], ids=["frame", "array"])
@pytest.mark.parametrize("name", ASKED)
def test_named_columns_are_those_of_the_network(name: str, labelled: Any) -> None:
    np.testing.assert_allclose(ASKED[name](labelled), ASKED[name](X), atol=1e-9)


def test_two_labelled_ends_in_two_orders() -> None:
    box = mn.Box(FRAME - 0.1, pd.DataFrame(X + 0.2, columns=["a", "b", "c"]))
    np.testing.assert_allclose(box.fit((3,), NETWORK.input_names).upper, X + 0.2)
    ball = mn.Box(X - 0.5, X + 0.5, mn.Ball(FRAME, 0.1, "l2")).fit((3,), NETWORK.input_names).ball
    assert ball is not None
    np.testing.assert_allclose(ball.centre, X)


@pytest.mark.parametrize("name", [name for name in ASKED if name != "box with one labelled end"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(mn.MipnetError, match="has a feature `z`; the network takes a, b, c"):
        ASKED[name](STRANGE)


LABELS = NETWORK.forward(X).argmax(axis=1)
OTHERS = NETWORK.with_input_names(COLUMNS)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: mn.verify(NETWORK, mn.Property((mn.Case(mn.Samples(FRAME[:1]), (mn.Clause([[1.0, 0.0]], [0.0]),)),))),
        lambda: mn.verify(NETWORK, mn.property_of(lambda x, y: (x[0] <= 0.75) & (y[0] <= 0), mn.Samples(FRAME[:1]), 2)),
        lambda: mn.agree(NETWORK, OTHERS, mn.Samples(X[:1])),
        lambda: mn.agree_on_class(NETWORK, OTHERS, mn.Samples(X[:1])),
        lambda: train_heads(NETWORK, ["fc1"], HeadTraining(FRAME, LABELS, epochs=1)),
        lambda: _compare(mn.LabelledImages(FRAME, LABELS)),
        lambda: _compare(Dataset(FRAME, LABELS, "mine", 2).take(np.arange(2))),
    ],
    ids=["case", "property_of", "agree", "agree_on_class", "heads", "compare", "data set"],
)
def test_what_is_not_put_in_order_is_refused(ask: Callable[[], object]) -> None:
    with pytest.raises(mn.MipnetError, match="has the features c, a, b; the network takes a, b, c: give them in this order"):
        ask()


def _compare(images: mn.LabelledImages | Dataset) -> object:
    gates = mn.find_gates(NETWORK)
    return mn.compare(NETWORK, gates, xr.Dataset({"fc1": ("fc1_unit", [0.1, 0.9])}), images, images, rivals=["magnitude"])


def test_a_network_without_names_keeps_the_order() -> None:
    plain = mn.Network.build((3,), [("fc1", mn.Dense([[1.0, -2.0, 0.5]]))])
    np.testing.assert_allclose(plain.forward(FRAME), plain.forward(FRAME.to_numpy()))
