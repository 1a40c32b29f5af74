"""Trains the two networks of the examples on scikit-learn's digits and writes digits.safetensors and digits_cnn.safetensors.

Run it with `python examples/train_digits.py [folder]`; it takes less than a minute.  The seeds are fixed, so the same versions
of torch and scikit-learn give the same weights.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mipnet.readers import data


def mlp() -> nn.Sequential:
    layers = [
        ("fc1", nn.Linear(64, 50)),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(50, 20)),
        ("relu2", nn.ReLU()),
        ("fc3", nn.Linear(20, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))


def cnn() -> nn.Sequential:
    layers = [
        ("conv1", nn.Conv2d(1, 6, 3, padding=1)),
        ("bn1", nn.BatchNorm2d(6)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(6, 8, 3, padding=1)),
        ("bn2", nn.BatchNorm2d(8)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(32, 16)),
        ("relu3", nn.ReLU()),
        ("fc2", nn.Linear(16, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))


def tensors(split: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    digits = data.load("digits", split=split, shape=shape)
    return torch.tensor(digits.images, dtype=torch.float32), torch.tensor(digits.labels)


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        schedule.step()
    model.eval()


def accuracy(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, build, shape, epochs in (("digits", mlp, (64,), 40), ("digits_cnn", cnn, (1, 8, 8), 40)):
        torch.manual_seed(0)
        model = build()
        train(model, *tensors("train", shape), epochs)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
        scores = {split: accuracy(model, *tensors(split, shape)) for split in data.DATA_SPLITS}
        print(f"{name}: train accuracy {scores['train']:.2%}, test accuracy {scores['test']:.2%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
