"""Networks in a dispatch model: the solver's defaults for them."""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
import pytest

import mipnet as mn
from mipnet.backend import get_backend
from mipnet.solving.problem import Modelled


def network() -> mn.Network:
    rng = np.random.default_rng(3)
    layers = [
        ("fc1", mn.Dense(rng.normal(size=(6, 2)), rng.normal(size=6))),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense(rng.normal(size=(1, 6)))),
    ]
    return mn.Network.build((2,), layers)


def dispatch(hours: int = 3) -> mn.Encoding:
    """Hours with two inputs each, of which the second one is known."""
    model, time = linopy.Model(), pd.RangeIndex(hours, name="time")
    power = model.add_variables(-1, 1, coords=[time], name="power")
    handle = mn.add_network(model, network(), [power, 0.3])
    model.add_objective(handle.output.sum())
    return handle


@pytest.mark.parametrize(
    ("options", "rounds"),
    [(None, (0, 0)), ({"separating/maxroundsroot": 3}, (-1, 3)), ({"lp/initalgorithm": "d"}, (0, 0))],
)
def test_scip_separates_no_cuts_in_a_users_model_unless_asked(options: dict[str, object] | None, rounds: tuple[int, int]) -> None:
    own = mn.encode(network(), mn.Box(np.zeros((1, 2)), np.ones((1, 2))))
    for problem, expected in ((dispatch(), rounds), (own, None)):
        with get_backend("scip").open(Modelled.of(problem).program, options) as session:
            model = session._model
            found = tuple(model.getParam(f"separating/{name}") for name in ("maxrounds", "maxroundsroot"))
        assert (found == expected) if expected else found[0] == -1
