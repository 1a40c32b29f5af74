"""Files of torch's exporters, by TorchScript (old) and by torch.export (new), give the outputs of onnxruntime and of torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import UnsupportedError
from tests.readers.export_onnx import ZIP, export, quiet
from tests.readers.onnx_graphs import error_of, runtime
from tests.readers.test_torch import ALL

with zipfile.ZipFile(ZIP) as _archive:
    EXPORTED = {name.removesuffix(".onnx"): _archive.read(name) for name in _archive.namelist()}

REFUSED = {  # mipnet has no layer for the operators that an exporter writes for them
    "threshold.new": "operator `LessOrEqual`",
    "permute-negative.old": r"operator `Transpose`.*its perm is \[0, -1, 1, 2\]",  # the standard has no negative ones
}


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", [name for name in EXPORTED if name not in REFUSED and name != "conv-same-dilated.old"])
def test_network_equals_onnxruntime(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, EXPORTED[name])
    network = mn.read(path)
    shape = ALL[name.rpartition(".")[0]][1]
    assert network.input_shape == shape
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    model = onnx.load_from_string(EXPORTED[name])
    single = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    wanted = np.concatenate([runtime(model, each[None]) for each in x]) if single else runtime(model, x)
    assert error_of(network.forward(x), wanted) < 1e-5
    assert not [note for note in network.notes if "not compared" in note]


def test_both_exporters_wrote_most_networks() -> None:
    for exporter, missing in (("new", 0), ("old", 4)):
        assert sum(name.endswith(exporter) for name in EXPORTED) == len(ALL) - missing


def test_padding_that_onnxruntime_does_not_run(tmp_path: Path) -> None:
    """'same' with dilations: the new exporter writes the numbers, the old one `auto_pad`; the weights are the same."""
    old = mn.read(saved(tmp_path, EXPORTED["conv-same-dilated.old"]))
    x = np.random.default_rng(1).normal(size=(3, *old.input_shape)).astype(np.float32)
    assert error_of(old.forward(x), runtime(onnx.load_from_string(EXPORTED["conv-same-dilated.new"]), x)) < 1e-5


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        mn.read(saved(tmp_path, EXPORTED[name]))


def small() -> nn.Module:
    """A network whose attributes are exact in float32, the type that ONNX has for them."""
    torch.manual_seed(0)
    features = (nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4, eps=2**-10), nn.LeakyReLU(0.125), nn.MaxPool2d(2))
    head = (nn.Flatten(), nn.Linear(16, 3), nn.Hardtanh(-0.5, 0.75), nn.Linear(3, 2), nn.Softmax(1))
    module = nn.Sequential(*features, *head)
    with torch.no_grad():
        for value in (module[1].running_mean, module[1].running_var):  # type: ignore[union-attr]
            value.copy_(torch.rand(4) + 0.1)  # type: ignore[operator]
    return module.eval()


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_float64_equals_torch(tmp_path: Path, dynamo: bool, dynamic: bool) -> None:
    module = small().double()
    network = mn.read(saved(tmp_path, export(module, (2, 8, 8), dynamo=dynamo, dynamic=dynamic).SerializeToString()))
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    assert np.abs(network.forward(x.numpy()) - module[:-1](x).detach().numpy()).max() < 1e-10
    assert "softmax was taken off" in network.notes[0]
    assert [node.layer.label for node in network.nodes if node.layer.prunable] == ["Conv2d", "Dense", "Dense"]


class View(nn.Module):
    """A flattening by shape arithmetic, as in many modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(18, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x))
        return self.head(y.view(y.size(0), y.size(1) * y.size(2) * y.size(3)))


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 17, 20])
def test_versions_of_the_old_exporter(tmp_path: Path, opset: int) -> None:
    torch.manual_seed(0)
    module = View().eval()
    model = export(module, (1, 5, 5), dynamo=False, opset_version=opset)
    assert model.opset_import[0].version == opset
    network = mn.read(saved(tmp_path, model.SerializeToString()))
    assert [(node.name, node.layer.label) for node in network.nodes if node.layer.prunable] == [("conv", "Conv2d"), ("head", "Dense")]
    x = torch.randn(3, 1, 5, 5)
    assert error_of(network.forward(x.numpy()), module(x).detach().numpy()) < 1e-5


def test_what_mipnet_exports_is_read_again(tmp_path: Path) -> None:
    module = small()
    with quiet():
        mn.export(module, tmp_path / "net.onnx", torch.zeros(1, 2, 8, 8))
    x = torch.randn(4, 2, 8, 8)
    assert error_of(mn.read(tmp_path / "net.onnx").forward(x.numpy()), module[:-1](x).detach().numpy()) < 1e-5
