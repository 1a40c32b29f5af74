"""24 hours of three heat plants whose power a network predicts, in three libraries, each in the form that its own examples have.

The network has four inputs: heat q, temperature T, supply temperature s and age.  The lines between ``begin`` and ``end`` are those for
the network; all others would be there without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import linopy
import numpy as np
import pandas as pd
import torch
import xarray as xr

import mipnet as mn
from mipnet.arrays import Array

PLANTS = ("a", "b", "c")
AGE = (0.0, 0.5, 1.0)
HEAT, SUPPLY = (0.0, 10.0), (30.0, 60.0)
"""The ranges of the heat of a plant and of the supply temperature."""


@cache
def surrogate() -> torch.nn.Module:
    """A 4-16-16-1 ReLU network that has learned the power of a heat pump from 6,000 points, in its physical units."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(low, high, 6000) for low, high in ((0, 10), (-10, 20), (30, 60), (0, 1))], axis=1)
    q, temperature, supply, age = x.T
    y = q / (2.0 + 0.05 * (temperature + 10) - 0.02 * (supply - 30) + 0.3 * age) + 0.02 * q**2
    torch.manual_seed(0)
    linear = torch.nn.Linear
    net = torch.nn.Sequential(linear(4, 16), torch.nn.ReLU(), linear(16, 16), torch.nn.ReLU(), linear(16, 1))
    centre, spread = x.mean(0), x.std(0)
    inputs, target = (torch.tensor(each, dtype=torch.float32) for each in ((x - centre) / spread, y[:, None]))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        for part in torch.randperm(len(inputs)).split(128):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(net(inputs[part]), target[part]).backward()
            optimiser.step()
    with torch.no_grad():  # the scaling becomes part of the first layer
        weight = net[0].weight.clone()
        net[0].weight.copy_(weight / torch.tensor(spread, dtype=torch.float32))
        net[0].bias.sub_((weight * torch.tensor(centre / spread, dtype=torch.float32)).sum(1))
    return net.double().eval()


@dataclass(frozen=True)
class Hours:
    """What is known of each hour."""

    temperature: Array
    heat: Array
    price: Array

    @staticmethod
    def of(count: int) -> Hours:
        """The first hours of a day that repeats."""
        t = np.arange(count)
        return Hours(5 + 8 * np.sin(t / 24 * 2 * np.pi), 14 + 6 * np.cos(t / 24 * 2 * np.pi), 50 + 20 * np.sin(t / 6))

    @property
    def curve(self) -> Array:
        """The lowest supply temperature."""
        return 40 + 0.5 * (10 - self.temperature)


def in_mipnet(net: torch.nn.Module, hours: Hours) -> tuple[linopy.Model, mn.Encoding]:
    """linopy and mipnet."""
    time, plant = pd.RangeIndex(len(hours.heat), name="time"), pd.Index(PLANTS, name="plant")
    temperature, heat, price, curve = (
        xr.DataArray(each, coords=[time]) for each in (hours.temperature, hours.heat, hours.price, hours.curve)
    )
    age = xr.DataArray(list(AGE), coords=[plant])
    m = linopy.Model()
    q = m.add_variables(*HEAT, coords=[time, plant], name="q")
    s = m.add_variables(*SUPPLY, coords=[time], name="supply")
    m.add_constraints(q.sum("plant") >= heat, name="heat")
    m.add_constraints(s >= curve, name="curve")
    # begin
    power = mn.add_network(m, net, [q, temperature, s, age])
    m.add_objective((power.output.isel(fc3_unit=0, drop=True) * price).sum())
    # end
    return m, power


def in_gurobi(net: torch.nn.Module, hours: Hours) -> tuple[Any, Any]:
    """gurobipy and gurobi-machinelearning, whose inputs may be a data frame of variables and numbers."""
    import gurobipy as gp
    from gurobi_ml import add_predictor_constr

    n, p = len(hours.heat), len(PLANTS)
    with gp.Env(params={"OutputFlag": 0}) as env:
        m = gp.Model(env=env)
    q = m.addMVar((n, p), lb=HEAT[0], ub=HEAT[1], name="q")
    s = m.addMVar(n, lb=SUPPLY[0], ub=SUPPLY[1], name="supply")
    m.addConstr(q.sum(axis=1) >= hours.heat)
    m.addConstr(s >= hours.curve)
    # begin
    m.update()
    rows = pd.MultiIndex.from_product([range(n), PLANTS], names=["time", "plant"])
    columns = {"q": q.reshape(-1).tolist(), "T": np.repeat(hours.temperature, p), "s": np.repeat(s.tolist(), p), "age": np.tile(AGE, n)}
    power = add_predictor_constr(m, net, pd.DataFrame(columns, index=rows))
    m.setObjective(np.repeat(hours.price, p) @ power.output.reshape(-1))
    # end
    m.update()
    return m, power


def in_pyscipopt(net: torch.nn.Module, hours: Hours, formulation: str) -> tuple[Any, Any]:
    """PySCIPOpt and PySCIPOpt-ML, whose inputs are arrays of variables."""
    from pyscipopt import Model, quicksum
    from pyscipopt_ml.add_predictor import add_predictor_constr

    n, p = len(hours.heat), len(PLANTS)
    m = Model()
    m.hideOutput()
    q = np.array([[m.addVar(lb=HEAT[0], ub=HEAT[1]) for _ in PLANTS] for _ in range(n)])
    s = np.array([m.addVar(lb=SUPPLY[0], ub=SUPPLY[1]) for _ in range(n)])
    for t in range(n):
        m.addCons(quicksum(q[t]) >= hours.heat[t])
        m.addCons(s[t] >= hours.curve[t])
    # begin
    fixed = [[m.addVar(lb=v, ub=v) for v in each] for each in (np.repeat(hours.temperature, p), np.tile(AGE, n))]
    x = np.stack([q.reshape(-1), fixed[0], np.repeat(s, p), fixed[1]], axis=1)
    y = np.array([[m.addVar(lb=None)] for _ in range(n * p)])
    power = add_predictor_constr(m, net, x, y, formulation=formulation)
    m.setObjective(quicksum(c * v for c, v in zip(np.repeat(hours.price, p), y[:, 0], strict=True)))
    # end
    return m, power


def lines_for_the_network(function: Callable[..., Any]) -> int:
    """Number of lines between ``begin`` and ``end``."""
    own = inspect.getsource(function).partition("# begin\n")[2].partition("# end")[0]
    return sum(bool(line.strip()) for line in own.splitlines())
