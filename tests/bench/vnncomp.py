"""The `mnist_fc` networks of VNN-COMP, read from the folder that MIPNET_DATA names: 256 units a layer, 2, 4 or 6 hidden layers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn

ROOT = Path(os.environ.get("MIPNET_DATA", "data"))


def mnist_fc(depth: int) -> mn.Network:
    """The network with so many hidden layers; the test is skipped where its file, or the onnx package, is missing."""
    onnx = pytest.importorskip("onnx")
    path = ROOT / "vnncomp" / "mnist_fc" / "onnx" / f"mnist-net_256x{depth}.onnx"
    if not path.is_file():
        pytest.skip(f"there is no `{path}`; MIPNET_DATA names the folder of data")
    weights = {each.name: np.array(onnx.numpy_helper.to_array(each)) for each in onnx.load(str(path)).graph.initializer}
    layers: list[tuple[str, mn.Layer]] = []
    for k in range(depth + 1):
        layers += [
            (f"fc{k + 1}", mn.Dense(*(weights[f"layers.{2 * k}.{part}"] for part in ("weight", "bias")))),
            (f"relu{k + 1}", mn.ReLU()),
        ]
    return mn.Network.build((784,), layers[:-1])


def ball(epsilon: float) -> mn.Box:
    """All that is within epsilon of the first test image of MNIST."""
    if not (ROOT / "mnist").is_dir():
        pytest.skip(f"there is no `{ROOT / 'mnist'}`; MIPNET_DATA names the folder of data")
    image = mn.load("mnist", ROOT, split="test", shape=(784,)).images[:1]
    return mn.LInf(image, epsilon, lower=0, upper=1)
