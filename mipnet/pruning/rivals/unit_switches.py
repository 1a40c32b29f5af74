"""Switches for the units of a torch module: each is Bernoulli with a probability theta that is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from mipnet.errors import InputError, UnsupportedError
from mipnet.network.gates import Gate, mask_actions
from mipnet.network.graph import Network

THETA_TOLERANCE = 1e-3
"""A theta at most this far from 0 or 1 counts as decided."""


class UnitSwitches:
    """Switches at the sites of a module's gates: forward hooks that multiply by the drawn ``xi``, inside a ``with`` block."""

    def __init__(self, module: nn.Module, network: Network, gates: Sequence[Gate], theta: float, prices: Mapping[str, float]) -> None:
        self.module, self.network, self.gates, self.prices = module, network, gates, prices
        self.thetas = {gate.name: torch.full((gate.units,), theta) for gate in gates}
        self.drawn: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> UnitSwitches:
        known = dict(self.module.named_modules())
        for gate in self.gates:
            for path in dict.fromkeys(self.network.modules.get(self.network[site].origin) for site in gate.sites):
                if path is None:
                    raise UnsupportedError(self._advice(gate))
                self._hooks.append(known[path].register_forward_hook(partial(self._switch, gate.name)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _switch(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        xi = self.drawn[name]
        return output * xi.reshape(*xi.shape, *[1] * (output.ndim - 2)).to(output.dtype)

    def _advice(self, gate: Gate) -> str:
        return (
            f"the units of `{gate.name}` cannot be switched from outside the module; expected its activation to be a module of its own"
            " (nn.ReLU, one for each layer), not a function in `forward`"
        )

    def check(self, x: Tensor) -> None:
        """Raise `UnsupportedError` unless switching off every other unit of a layer has the same effect as masking it in the network."""
        off = {g.name: torch.ones(g.units) for g in self.gates}
        self.module.eval()
        for gate in self.gates:
            off[gate.name] = (torch.arange(gate.units) % 2).float()
            self.drawn = {name: value.expand(len(x), -1) for name, value in off.items()}
            masks = xr.Dataset({g.name: (g.dim, off[g.name].numpy() > 0) for g in self.gates})
            with torch.no_grad():
                found = self.module(x).double().numpy()
            truth = self.network.outputs(x, mask_actions(self.gates, masks))
            if found.shape != truth.shape or np.abs(found - truth).max() > 1e-3 * (1 + np.abs(truth).max()):
                raise UnsupportedError(self._advice(gate))

    def draw(self, samples: int) -> None:
        """Draw new xi for every image, with gradients."""
        self.drawn = {name: torch.bernoulli(theta.expand(samples, -1)).requires_grad_() for name, theta in self.thetas.items()}

    def slope(self, name: str, images: int) -> Tensor:
        """Return ``dC + ln(g) / N`` of a gate, from the gradients of the mean cross-entropy of one minibatch."""
        found = self.drawn[name].grad
        if found is None:
            raise InputError(f"gate `{name}` has no gradient; expected a loss that depends on its switches")
        return found.sum(dim=0) + self.prices[name] / images

    def move(self, images: int, step: float) -> None:
        """Take the projected step of every theta; thetas at 0 stay at 0, and the best theta of a layer is kept above 0."""
        for name, theta in self.thetas.items():
            slope = self.slope(name, images)
            moved = (theta - step * slope).clamp(0, 1)
            moved[theta == 0] = 0.0
            if not bool((moved > 0).any()):
                best = int(torch.argmin(torch.where(theta > 0, slope, torch.inf)))
                moved[best] = 1.0
            self.thetas[name] = moved

    def settle(self) -> None:
        """Set every theta to the nearer of 0 and 1, and the largest of a layer to 1."""
        self.thetas = {name: ((theta > 0.5) | (theta == theta.max())).to(theta.dtype) for name, theta in self.thetas.items()}

    def undecided(self) -> float:
        """Return the share of thetas that are neither 0 nor 1."""
        every = torch.cat(list(self.thetas.values()))
        return float(((every > THETA_TOLERANCE) & (every < 1 - THETA_TOLERANCE)).double().mean())
