"""Set the price of a fruit in each region, and how much to send there, where trees predict the demand from price, region and season.

The model is that of the price optimisation which Gurobi Machine Learning has as an example (its data are sales of avocados); the data are
made here.  The revenue is a product of price and sales, which SCIP takes.  Run it with ``python examples/regional_prices.py``.
"""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
import xarray as xr
from sklearn.ensemble import GradientBoostingRegressor

import mipnet as mn

rng = np.random.default_rng(0)
REGIONS = pd.Index(["north", "south", "west"], name="region")
SIZE, LEAST, MOST = pd.Series([3.0, 5.0, 4.0], REGIONS), 0.8, 2.4
FREIGHT = pd.Series([0.30, 0.10, 0.20], REGIONS).to_xarray()
SUPPLY, WASTE = 10.0, 0.1
"""How much there is, and what a unit that is not sold costs."""


def demand(data: pd.DataFrame) -> np.ndarray:
    """The demand in a region: more in the season, less at a higher price."""
    return data["size"] * (1.7 - 0.65 * data["price"] + 0.3 * data["season"]) + 0.1 * rng.normal(size=len(data))


past = pd.DataFrame({"price": rng.uniform(LEAST, MOST, 600), "size": rng.choice(SIZE, 600), "season": rng.integers(0, 2, 600)})
trees = GradientBoostingRegressor(n_estimators=12, max_depth=2, learning_rate=0.3, random_state=0).fit(past, demand(past))

model = linopy.Model()
price = model.add_variables(LEAST, MOST, coords=[REGIONS], name="price")
sold, sent = (model.add_variables(0, SUPPLY, coords=[REGIONS], name=name) for name in ("sold", "sent"))
wanted = mn.add_network(model, trees, {"price": price, "size": SIZE.to_xarray(), "season": 1.0})  # one ensemble per region
model.add_constraints(sold <= sent, name="no more than there is")
model.add_constraints(sold <= wanted.output.isel({wanted.output.dims[-1]: 0}, drop=True), name="no more than is wanted")
model.add_constraints(sent.sum() <= SUPPLY, name="supply")
income = (price * sold).sum() - (FREIGHT * sent).sum() - WASTE * (sent - sold).sum()
model.add_objective(income, sense="max")

result = mn.solve(model, "scip", time_limit=60, mip_gap=1e-3)
plan = xr.Dataset({name: variable.solution for name, variable in {"price": price, "sold": sold, "sent": sent}.items()}).to_dataframe()
plan["wanted"] = trees.predict(plan[["price"]].assign(size=SIZE, season=1.0))
print(f"income {result.objective:.3f}, {result.status.value}, verified: {result.verified}, error of the trees {wanted.error():.1e}")
print(plan.round(2))
