"""A VGG-style network of a million parameters on Fashion-MNIST, trained for a few minutes on one core and kept."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mipnet as mn
from tests.bench.trained import CACHE, dense, load_split

CHANNELS = ((32, 32), (64, 64), (128, 128))
"""Six 3x3 convolutions with batch norm, and a max pool behind each pair; then 1152-512-256-10."""

EPOCHS, IMAGES = 5, 20_000


def make_vgg(seed: int) -> nn.Sequential:
    """The untrained network; 1,011,114 parameters."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    given = 1
    for pair in CHANNELS:
        for channels in pair:
            layers += [nn.Conv2d(given, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            given = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), *dense(128 * 3 * 3, 512, 256, 10))


def trained_vgg(seed: int) -> nn.Sequential:
    """The network after `EPOCHS` of Adam 1e-3, batch 128, on the first `IMAGES` training images; from the cache if it is there."""
    module, path = make_vgg(seed), CACHE / f"fashion-mnist-vgg-{seed}-{EPOCHS}-{IMAGES}.safetensors"
    if not path.exists():
        images, labels = load_split("fashion-mnist", seed).train
        settings = mn.TrainingSettings(optimizer="adam", on_epoch=print)
        mn.train(module, images[:IMAGES], labels[:IMAGES], epochs=EPOCHS, seed=seed, settings=settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    module.load_state_dict(load_file(path))
    return module.eval()
