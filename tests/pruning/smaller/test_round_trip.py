"""Every layer that mipnet reads from torch is exported to files that mipnet reads again, with odd sizes, and computes the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.pruning.smaller import export
from mipnet.pruning.smaller.onnx_translations import equal_windows
from mipnet.readers.onnx_call import ONNX_RULES
from tests.readers.onnx_graphs import error_of, runtime
from tests.sweep import marked, sweep

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
IMAGE, VECTOR = (2, 5, 7), (5,)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


IMAGE_LAYERS: dict[str, nn.Module] = {
    "conv": nn.Conv2d(2, 4, (2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    "conv same, even": nn.Conv2d(2, 3, (2, 4), padding="same"),
    "conv same, gaps": nn.Conv2d(2, 3, (2, 3), padding="same", dilation=(3, 2)),
    "conv of all": nn.Conv2d(2, 3, (5, 7), bias=False),
    "norm": nn.BatchNorm2d(2),
    "norm without weights": nn.BatchNorm2d(2, affine=False),
    "max, ceil": nn.MaxPool2d(2, ceil_mode=True),
    "max, padded": nn.MaxPool2d(3, 2, 1),
    "max, gaps": nn.MaxPool2d((2, 3), 2, padding=1, dilation=(2, 1), ceil_mode=True),
    "mean": nn.AvgPool2d((2, 3)),
    "mean, ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "mean, padding left out": nn.AvgPool2d((2, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False),
    "mean, divisor": nn.AvgPool2d(2, divisor_override=3),
    "mean, divisor, ceil": nn.AvgPool2d((2, 3), 2, padding=1, ceil_mode=True, divisor_override=5),
    "adaptive, one": nn.AdaptiveAvgPool2d(1),
    "adaptive, equal": nn.AdaptiveAvgPool2d((5, 1)),
    "adaptive, overlapping": nn.AdaptiveAvgPool2d((2, 3)),
    "adaptive, unequal": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive, larger": nn.AdaptiveAvgPool2d((7, 9)),
    "adaptive, one axis": nn.AdaptiveAvgPool2d((None, 3)),
    "adaptive, as a function": Function(lambda x: F.adaptive_avg_pool2d(x, (3, 4)).flatten(1)),
    "mean of positions": Function(lambda x: x.mean((2, 3))),
    "mean of positions, kept": Function(lambda x: x + x.mean((-1, -2), keepdim=True)),
    "permuted": Function(lambda x: x.permute(0, 2, 3, 1)),
    "transposed": Function(lambda x: x.transpose(1, 3)),
    "moved": Function(lambda x: x.movedim(1, -1)),
    "flat from the third axis": nn.Flatten(2),
    "flat": nn.Flatten(),
    "viewed": Function(lambda x: x.view(x.size(0), -1)),
    "joined": Function(lambda x: torch.cat([x, F.relu(x)], -1)),
    "factor of each channel": Function(lambda x: x * torch.tensor([[[0.5]], [[-2.0]]], dtype=x.dtype)),
}
VECTOR_LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(5, 3),
    "linear without bias": nn.Linear(5, 3, bias=False),
    "norm": nn.BatchNorm1d(5),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.1),
    "leaky, steep": nn.LeakyReLU(2.0),
    "hardtanh": nn.Hardtanh(-0.3, 0.7),
    "prelu": nn.PReLU(),
    "threshold": nn.Threshold(0, 0),
    "clamp": Function(lambda x: x.clamp(min=-0.5)),
    "residual": Function(lambda x: x - 2 * F.relu(x)),
    "shift": Function(lambda x: 1 - x / 3),
    "unflattened": nn.Unflatten(1, (5, 1, 1)),
    "dropout": nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.Identity(), nn.Linear(4, 2)),
    "softmax": nn.Sequential(nn.Linear(5, 3), nn.Softmax(1)),
    "log-softmax": nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(-1)),
}


def randomised(module: nn.Module) -> nn.Module:
    """Numbers of their own for all weights and statistics, in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if value.is_floating_point():
                value.copy_(
                    torch.rand_like(value) + 0.1 if "var" in name or value.ndim < 1 or value.numel() == 1 else torch.randn_like(value)
                )
    return module.eval()


def read_back(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Compare the file with the module, in mipnet and, for ONNX, in onnxruntime."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    mn.export(module, path, torch.zeros(1, *shape))
    with torch.no_grad():
        wanted = module(x).numpy()
    layers, input_shape = None, None
    if path.suffix == ".safetensors":
        sheet = yaml.safe_load(path.with_suffix(".layers.yaml").read_text())["network"]
        layers, input_shape = sheet["layers"], sheet["input_shape"]
    network = mn.read(path, layers, input_shape)
    assert network.output_shape == wanted.shape[1:]
    assert error_of(network.outputs(x.double()), wanted) < 1e-5
    if path.suffix == ".onnx":
        assert error_of(runtime(path, x.numpy()), wanted) < 1e-5
        assert not any("not compared" in note for note in network.notes)


CASES = [(name, IMAGE) for name in IMAGE_LAYERS] + [(name, VECTOR) for name in VECTOR_LAYERS]


@pytest.mark.parametrize(("name", "shape"), sweep(CASES, every=16))
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_layer_alone(tmp_path, name, shape, suffix):
    layers = IMAGE_LAYERS if shape == IMAGE else VECTOR_LAYERS
    read_back(randomised(layers[name]), shape, tmp_path / f"net{suffix}")


CHAINS = {
    "pools": ["conv", "mean, divisor, ceil", "adaptive, unequal"],
    "adaptive": ["adaptive, larger", "max, gaps", "adaptive, overlapping", "flat from the third axis"],
    "norms": ["norm", "conv same, even", "max, ceil", "mean, ceil", "mean of positions"],
    "shapes": ["norm without weights", "factor of each channel", "joined", "mean, padding left out", "transposed", "flat"],
    "vectors": ["linear", "relu6"],
}


def chain(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module of several layers; convolutions get as many channels as arrive."""
    images = name != "vectors"
    if not images:
        parts = [VECTOR_LAYERS[each] for each in ("norm", "leaky", "residual", "hardtanh", "threshold", "shift", "prelu", "dropout")]
        return randomised(nn.Sequential(*parts)), VECTOR
    found, x = [], torch.zeros(2, *IMAGE)
    for each in CHAINS[name]:
        part = IMAGE_LAYERS[each]
        if isinstance(part, nn.Conv2d) and part.in_channels != x.shape[1]:
            raise AssertionError
        found.append(part.eval())
        x = found[-1](x)
    return randomised(nn.Sequential(*found)), IMAGE


@pytest.mark.parametrize(
    ("name", "suffix"), [(name, ".pt2") for name in CHAINS] + sweep([(name, ".onnx") for name in sorted(CHAINS)], every=9)
)
def test_chains_of_layers(tmp_path, name, suffix):
    module, shape = chain(name)
    read_back(module, shape, tmp_path / f"net{suffix}")


@pytest.mark.parametrize("name", ["pools", "norms", "vectors"])
def test_weights_with_their_layers(tmp_path, name):
    module, shape = chain(name)
    plain = OrderedDict((f"l{k}", part) for k, part in enumerate(module) if type(part) in export.INLINE_LAYERS.values())
    read_back(nn.Sequential(plain).eval(), shape, tmp_path / "net.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, marked(torch.float16)])
def test_other_number_types(tmp_path, dtype):
    module = randomised(nn.Sequential(nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten(), nn.Linear(24, 2))).to(dtype)
    path = mn.export(module, tmp_path / "net.onnx", torch.zeros(1, *IMAGE, dtype=dtype))
    x = torch.randn(3, *IMAGE, dtype=torch.float64)
    wanted = module.double()(x).detach().numpy()
    assert error_of(mn.read(path).forward(x), wanted) < (1e-9 if dtype == torch.float64 else 2e-3)
    kinds = {each.data_type for each in onnx.load(path).graph.initializer if each.data_type != onnx.TensorProto.INT64}
    assert kinds == {onnx.TensorProto.DOUBLE if dtype == torch.float64 else onnx.TensorProto.FLOAT16}


@pytest.mark.sweep
def test_what_cannot_be_read_again_is_not_written(tmp_path, monkeypatch):
    """An operator that a reader without its rule refuses; without the translations, torch ignores a divisor."""
    monkeypatch.setattr(export, "onnx_translations", lambda network: {})
    import_module("mipnet.readers.onnx_shapes")
    monkeypatch.delitem(ONNX_RULES, "GatherND")
    with pytest.raises(UnsupportedError, match=r"net\.onnx` is not written: mipnet could not read .*`GatherND`") as caught:
        mn.export(IMAGE_LAYERS["adaptive, unequal"], tmp_path / "net.onnx", torch.zeros(1, *IMAGE))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        UnsupportedError, match=r"net\.onnx` is not written: what torch's exporter makes of the module differs from it by \d"
    ):
        mn.export(IMAGE_LAYERS["mean, divisor"], tmp_path / "net.onnx", torch.zeros(1, *IMAGE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", range(1, 9))
def test_windows_of_adaptive_pools(length):
    """Equal windows are told from unequal ones by the definition: floor and ceil of the ends."""
    for count in range(1, 10):
        starts = [i * length // count for i in range(count)]
        sizes = [-(-(i + 1) * length // count) - start for i, start in enumerate(starts)]
        equal = len(set(sizes)) == 1 and len({b - a for a, b in pairwise(starts)} or {1}) == 1
        found = equal_windows(length, count)
        assert (found is not None) == equal
        if found is not None and count > 1:
            assert np.array_equal(np.arange(count) * found[1], starts)
            assert found[0] == sizes[0]
