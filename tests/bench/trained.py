"""The paper's networks, trained by its recipe and kept: RMSprop 1e-3, batch 128, 30 epochs, no augmentation.

ElAraby et al. (CPAIOR 2023): FC-3 (784-300-100-10), FC-4 (784-200-100-100-10), LeNet-5 with average pooling, on 28x28 images here.
Of the 60,000 training images 10,000, drawn by the seed, are put aside to choose by; the test set is never seen here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mipnet as mn

CACHE = Path(os.environ.get("MIPNET_BENCH_CACHE", Path.home() / ".cache" / "mipnet-bench"))
NETS = ("fc3", "fc4", "lenet5")
DATA = ("mnist", "fashion-mnist")


@dataclass(frozen=True, eq=False)
class Split:
    """Images of shape (n, 1, 28, 28) in [0, 1] and labels: to train on, to choose by, to judge on once."""

    train: tuple[np.ndarray, np.ndarray]
    choose: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_split(source: str, seed: int) -> Split:
    """The data of one run; ``MIPNET_DATA`` says where they are."""
    known, test = (mn.load(source, split=part, shape=(1, 28, 28)) for part in ("train", "test"))
    order = np.random.default_rng([seed, 1]).permutation(len(known.labels))
    parts = [(known.images[i], known.labels[i]) for i in (order[10000:], order[:10000])]
    return Split(parts[0], parts[1], (test.images, test.labels))


def dense(*sizes: int) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return layers[:-1]


def make(net: str, seed: int) -> nn.Sequential:
    """An untrained network; the seed fixes its initial weights."""
    torch.manual_seed(seed)
    if net == "fc3":
        return nn.Sequential(nn.Flatten(), *dense(784, 300, 100, 10))
    if net == "fc4":
        return nn.Sequential(nn.Flatten(), *dense(784, 200, 100, 100, 10))
    conv = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*conv, *dense(256, 120, 84, 10))


def trained(source: str, net: str, seed: int, epochs: int = 30) -> nn.Sequential:
    """The trained network in eval mode, from the cache if it was trained before."""
    module = make(net, seed)
    path = CACHE / f"{source}-{net}-{seed}-{epochs}.safetensors"
    if not path.exists():
        fit(module, *load_split(source, seed).train, seed=seed, epochs=epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    module.load_state_dict(load_file(path))
    return module.eval()


def fit(module: nn.Module, images: np.ndarray, labels: np.ndarray, *, seed: int, epochs: int) -> None:
    """The paper's training loop."""
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.RMSprop(module.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()


if __name__ == "__main__":
    for seed in range(3):
        for net in ("fc3", "lenet5", "fc4"):
            for source in DATA:
                trained(source, net, seed)
