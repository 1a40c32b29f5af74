"""Put a trained network into a PyPSA model: the fuel that a gas turbine burns at its power and the temperature outside.

Run it with ``python examples/pypsa_dispatch.py`` (``pip install mipnet[pypsa]``).
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pypsa
import torch

import mipnet as mn

for name in ("pypsa", "linopy"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning)  # PyPSA speaks about its version 2
warnings.filterwarnings("ignore", category=Warning, module="linopy|pypsa")  # linopy about its semantics

HOURS = pd.date_range("2026-01-01", periods=12, freq="h", name="snapshot")
TEMPERATURE = pd.Series(8 + 7 * np.sin(np.arange(12) / 2), HOURS)
FUEL_PRICE = 20.0


def fuel(power: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """The fuel that a turbine burns: a turbine that runs at full power, or in warm air, is less efficient."""
    return power * (1.6 + 0.03 * (power - 6) ** 2 / 6 + 0.01 * temperature)


def surrogate() -> torch.nn.Module:
    """A network that has learned the fuel from data."""
    torch.manual_seed(0)
    x = torch.rand(400, 2) * torch.tensor([10.0, 20.0])
    y = fuel(x[:, :1], x[:, 1:])
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimiser = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(300):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimiser.step()
    return net.eval()


def network() -> pypsa.Network:
    """Two gas turbines, wind, and a load; the turbines have no `marginal_cost`, because the network gives the cost of their fuel."""
    n = pypsa.Network(snapshots=HOURS)
    n.add("Bus", "bus")
    n.add("Generator", ["gas1", "gas2"], bus="bus", p_nom=[10.0, 8.0])
    n.add("Generator", "wind", bus="bus", p_nom=6, p_max_pu=0.5 + 0.4 * np.cos(np.arange(12) / 3))
    n.add("Generator", "import", bus="bus", p_nom=20, marginal_cost=60)
    n.add("Load", "load", bus="bus", p_set=12 + 4 * np.sin(np.arange(12) / 2))
    return n


n = network()
model = n.optimize.create_model(include_objective_constant=False)
power = model.variables["Generator-p"].sel(name=["gas1", "gas2"])
burnt = model.add_variables(coords=power.coords, name="Generator-fuel")  # PyPSA writes it to generators_t.fuel
handle = mn.add_network(model, surrogate(), [power, TEMPERATURE], burnt)
model.objective += FUEL_PRICE * burnt.sum()

n.optimize.solve_model(solver_name="highs", output_flag=False)  # any solver of linopy
print(f"PyPSA: costs {n.objective:.2f}, error of the network {handle.error():.1e}")

result = mn.solve(model, "scip", time_limit=60)  # or mipnet, which checks the result
n.optimize.assign_solution()
n.optimize.assign_duals()  # of a linear program
n.optimize.post_processing()
print(f"mipnet: costs {n.objective:.2f}, {result.status.value}, verified: {result.verified}")
print(n.generators_t.p.round(2))
print(n.generators_t.fuel.round(2))
