"""What each library takes: the same requests, tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import linopy
import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

import mipnet as mn

Try = Callable[[], object]
HOURS, PLANTS = pd.RangeIndex(3, name="time"), pd.Index(["a", "b"], name="plant")


class Residual(nn.Module):
    """``x + W2 relu(W1 x)``, written in ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the value of a batch."""
        return x + self.second(torch.relu(self.first(x)))


def modules() -> dict[str, nn.Module]:
    """Networks of two inputs, or of an image of one channel and 4 x 4 pixels."""
    torch.manual_seed(0)
    relu, linear = nn.ReLU(), nn.Linear
    found = {
        "plain": nn.Sequential(linear(2, 4), relu, linear(4, 1)),
        "LeakyReLU": nn.Sequential(linear(2, 4), nn.LeakyReLU(), linear(4, 1)),
        "BatchNorm": nn.Sequential(linear(2, 4), nn.BatchNorm1d(4), relu, linear(4, 1)),
        "residual": Residual(),
        "convolution": nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Flatten(), linear(8, 1)),
    }
    return {name: module.double().eval() for name, module in found.items()}


def estimators() -> dict[str, Any]:
    """Fitted estimators of scikit-learn."""
    from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(60, 2))
    y = x[:, 0] * x[:, 1]
    found = {
        "a pipeline of a scaler and an MLPRegressor": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=20)),
        "GradientBoostingRegressor": GradientBoostingRegressor(n_estimators=3, max_depth=2),
        "HistGradientBoostingRegressor": HistGradientBoostingRegressor(max_iter=3, max_depth=2),
    }
    return {name: estimator.fit(x, y) for name, estimator in found.items()}


def of_mipnet() -> dict[str, Try]:
    """Requests by what is asked for."""
    own = modules()

    def model(lower: float = 0.0) -> tuple[linopy.Model, linopy.Variable]:
        m = linopy.Model()
        return m, m.add_variables(lower, 1.0, coords=[HOURS, PLANTS], name="q")

    def plain(make: Callable[[linopy.Variable], Any], lower: float = 0.0) -> Try:
        def ask() -> object:
            m, q = model(lower)
            return mn.add_network(m, own["plain"], make(q))

        return ask

    def pair(predictor: Any) -> Try:
        def ask() -> object:
            m, q = model()
            return mn.add_network(m, predictor, [q, q])

        return ask

    def image() -> object:
        m = linopy.Model()
        x = m.add_variables(0, 1, coords=[range(1), range(4), range(4)], dims=["channel", "row", "col"], name="x")
        return mn.add_network(m, mn.from_torch(own["convolution"], torch.zeros(1, 1, 4, 4)), x)

    weather = xr.DataArray([0.1, 0.2, 0.3], coords=[HOURS])
    found: dict[str, Try] = {
        "inputs over time and plant, as they are": plain(lambda q: [q, q]),
        "an input over time beside one over time and plant": plain(lambda q: [q, q.isel(plant=0, drop=True)]),
        "an expression as input (`0.9 q`)": plain(lambda q: [q, 0.9 * q]),
        "numbers as input": plain(lambda q: [q, weather]),
        "an input without a lower bound": plain(lambda q: [q, q], -np.inf),
        "a convolution": image,
    }
    found |= {name: pair(own[name]) for name in ("LeakyReLU", "BatchNorm", "residual")}
    return found | {name: pair(each) for name, each in estimators().items()}


def of_gurobi() -> dict[str, Try]:
    """The same requests."""
    import gurobipy as gp
    from gurobi_ml import add_predictor_constr

    own = modules()

    def ask(predictor: Any, make: Callable[[Any, Any], Any], lower: float = 0.0) -> Try:
        def tried() -> object:
            with gp.Env(params={"OutputFlag": 0}) as env:
                m = gp.Model(env=env)
            q = m.addMVar((3, 2), lb=lower, ub=1.0)
            s = m.addMVar(3, lb=0.0, ub=1.0)
            m.update()
            return add_predictor_constr(m, predictor, make(q, s))

        return tried

    def frame(second: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda q, s: pd.DataFrame({"a": q.reshape(-1).tolist(), "b": second(q, s)})

    def stacked(q: Any, s: Any) -> Any:
        return gp.concatenate([q.reshape(6, 1), q.reshape(6, 1)], axis=1)

    found: dict[str, Try] = {
        "inputs over time and plant, as they are": ask(own["plain"], lambda q, s: gp.concatenate([q.reshape(3, 2, 1)] * 2, axis=2)),
        "an input over time beside one over time and plant": ask(own["plain"], lambda q, s: [q, s]),
        "an expression as input (`0.9 q`)": ask(own["plain"], frame(lambda q, s: [0.9 * v for v in q.reshape(-1).tolist()])),
        "numbers as input": ask(own["plain"], frame(lambda q, s: np.tile([0.1, 0.2], 3))),
        "an input without a lower bound": ask(own["plain"], stacked, -gp.GRB.INFINITY),
        "a convolution": ask(own["convolution"], lambda q, s: gp.concatenate([q.reshape(6, 1)] * 16, axis=1)[:1].reshape(1, 1, 4, 4)),
    }
    found |= {name: ask(own[name], stacked) for name in ("LeakyReLU", "BatchNorm", "residual")}
    return found | {name: ask(each, stacked) for name, each in estimators().items()}


def of_pyscipopt() -> dict[str, Try]:
    """The same requests."""
    from pyscipopt import Model
    from pyscipopt_ml.add_predictor import add_predictor_constr

    own = modules()

    def ask(predictor: Any, make: Callable[[Any, Any], Any], lower: float | None = 0.0) -> Try:
        def tried() -> object:
            m = Model()
            m.hideOutput()
            q = np.array([[m.addVar(lb=lower, ub=1.0) for _ in range(2)] for _ in range(3)])
            s = np.array([m.addVar(lb=0.0, ub=1.0) for _ in range(3)])
            return add_predictor_constr(m, predictor, make(q, s))

        return tried

    def stacked(q: Any, s: Any) -> Any:
        return np.stack([q.reshape(-1), q.reshape(-1)], axis=1)

    def beside(second: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda q, s: np.stack([q.reshape(-1), np.array(second(q), dtype=object)], axis=1)

    found: dict[str, Try] = {
        "inputs over time and plant, as they are": ask(own["plain"], lambda q, s: np.stack([q, q], axis=2)),
        "an input over time beside one over time and plant": ask(own["plain"], lambda q, s: [q, s]),
        "an expression as input (`0.9 q`)": ask(own["plain"], beside(lambda q: [0.9 * v for v in q.reshape(-1)])),
        "numbers as input": ask(own["plain"], beside(lambda q: [0.1] * 6)),
        "an input without a lower bound": ask(own["plain"], stacked, None),
        "a convolution": ask(own["convolution"], lambda q, s: np.resize(q, (1, 1, 4, 4))),
    }
    found |= {name: ask(own[name], stacked) for name in ("LeakyReLU", "BatchNorm", "residual")}
    return found | {name: ask(each, stacked) for name, each in estimators().items()}


def answers(requests: dict[str, Try]) -> dict[str, str]:
    """What comes of each request: ``yes``, or the kind of error with its first words."""
    found = {}
    for name, ask in requests.items():
        try:
            ask()
            found[name] = "yes"
        except Exception as error:
            text = " ".join(str(error).split()).replace("|", "\\|")
            found[name] = f"`{type(error).__name__}`: {text[:80]}{'...' if len(text) > 80 else ''}"
    return found
