"""Small networks that end in a softmax, and their outputs on a fine grid of inputs, by torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import mipnet as mn

LASTS = {"softmax": nn.Softmax, "log_softmax": nn.LogSoftmax}


def made(kind: str, outputs: int, seed: int, inputs: int = 2, scale: float = 2.0) -> tuple[nn.Sequential, mn.Network, mn.Box]:
    """A module in float64 that ends in a softmax, its network, and a box."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs), LASTS[kind](1)).double().eval()
    with torch.no_grad():
        module[2].weight.mul_(scale)
    network = mn.from_torch(module, torch.zeros(1, inputs, dtype=torch.float64))
    return module.requires_grad_(False), network, mn.Box(np.full((1, inputs), -1.0), np.full((1, inputs), 1.0))


def run(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The module's outputs, with the softmax."""
    return np.asarray(module(torch.tensor(x)).detach().numpy())


def grid(count: int = 301) -> np.ndarray:
    """Inputs of the box of two inputs, 1/150 apart."""
    ends = np.linspace(-1, 1, count)
    return np.stack(np.meshgrid(ends, ends), -1).reshape(-1, 2)


def samples(inputs: int, count: int = 20_000) -> np.ndarray:
    """Random inputs and corners of the box."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (count, inputs))
    x[::3] = np.sign(x[::3])
    return x
