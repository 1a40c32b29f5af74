"""Torch modules of many kinds, with random weights and running statistics, and random masks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import mipnet as mn


class Functional(nn.Module):
    """Layers called from forward, flattened by `flatten(1)`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, stride=2, bias=False)
        self.fc1 = nn.Linear(45, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class Residual(nn.Module):
    """A stem, a block with identity, a block with projection, global average pooling."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = nn.Conv2d(6, 7, 3, padding=1, stride=2), nn.BatchNorm2d(7)
        self.side = nn.Conv2d(6, 7, 1, stride=2)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.conv3(x)) + self.side(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Branches(nn.Module):
    """Two branches side by side, and the input once more."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.join, self.head = nn.Conv2d(9, 4, 3), nn.Linear(4 * 6 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.join(torch.cat([self.left(x), x, self.right(x)], dim=1))).flatten(1))


class Twice(nn.Module):
    """One module used twice, and its gate with it."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.last(F.relu(self.again(F.relu(self.again(x)))))


def mlp(norm: bool = False) -> nn.Module:
    middle = [nn.BatchNorm1d(6)] if norm else []
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), *middle, nn.ReLU(), nn.Linear(6, 3))


def lenet(pool: type[nn.Module]) -> nn.Module:
    first = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), pool(2), nn.Conv2d(4, 6, 3), nn.ReLU(), pool(2), nn.Flatten()]
    return nn.Sequential(*first, nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))


def stack(affine: bool = True) -> nn.Module:
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6, affine=affine), nn.ReLU()]
    second = [nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5, affine=affine), nn.ReLU6(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Dropout(), nn.Flatten(), nn.Linear(45, 3))


def norm_after(padding: int, bias: bool) -> nn.Module:
    """Batch norm after the activation: a silent channel is a constant other than 0."""
    first = [nn.Conv2d(2, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=padding, bias=bias), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 3))


def depthwise() -> nn.Module:
    first = [nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(12, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(320, 3))


def grouped() -> nn.Module:
    first = [nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.LeakyReLU(0.1)]
    return nn.Sequential(*first, nn.Conv2d(4, 3, 4), nn.Flatten())


IMAGE = (2, 8, 8)
PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (5,)),
    "mlp-norm": (partial(mlp, norm=True), (5,)),
    "lenet-max": (partial(lenet, nn.MaxPool2d), IMAGE),
    "lenet-avg": (partial(lenet, nn.AvgPool2d), IMAGE),
    "stack": (stack, IMAGE),
    "stack-constant-norm": (partial(stack, affine=False), IMAGE),
    "functional": (Functional, IMAGE),
    "branches": (Branches, IMAGE),
}
"""Modules in which every unit that goes is cut out."""

OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, IMAGE),
    "twice": (Twice, (5,)),
    "norm-after": (partial(norm_after, 0, True), IMAGE),
    "norm-after-padded": (partial(norm_after, 1, True), IMAGE),
    "norm-after-no-bias": (partial(norm_after, 0, False), IMAGE),
    "depthwise": (depthwise, IMAGE),
    "grouped": (grouped, IMAGE),
}
"""Modules in which some units must stay, or constants other than 0 move."""

ALL = PLAIN | OTHERS


def make(name: str, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """A module in eval mode and float32, with weights and running statistics from a seed."""
    kind, shape = ALL[name]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        module = kind()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                if part.affine:
                    part.weight.normal_()
                    part.bias.normal_()
    return module.eval(), shape


def random_masks(gates, g: np.random.Generator, share: float = 0.6) -> xr.Dataset:
    """Masks that keep each unit with probability ``share``, and at least one of each gate."""
    masks = {}
    for gate in gates:
        kept = g.random(gate.units) < share
        kept[g.integers(gate.units)] = True
        masks[gate.name] = (gate.dim, kept)
    return xr.Dataset(masks)


def read(name: str, seed: int = 0, share: float = 0.6):
    """``(module, network, gates, masks, inputs)``."""
    module, shape = make(name, seed)
    network = mn.from_torch(module, torch.zeros(1, *shape))
    gates = mn.find_gates(network)
    g = np.random.default_rng(seed)
    return module, network, gates, random_masks(gates, g, share), torch.from_numpy(g.normal(size=(4, *shape)))
