"""Smaller modules in files are read back, and cost less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

import mipnet as mn
from mipnet.errors import InputError, NetworkError, UnsupportedError
from mipnet.pruning.smaller.export import rebuild
from mipnet.pruning.smaller.surgery import cut
from mipnet.readers.files import build_module
from tests.pruning.modules import Residual, make, read


def size(module) -> int:
    return sum(p.numel() for p in module.parameters())


def run(module, x):
    with torch.no_grad():
        return module(x).numpy()


def test_footprints_shrink():
    module, network, gates, masks, x = read("lenet-max")
    threads = torch.get_num_threads()
    before, after = mn.measure(module, x, batch=8, repeats=3), mn.measure(cut(module, network, gates, masks), x, batch=8, repeats=3)
    assert torch.get_num_threads() == threads
    assert before.parameters == size(module)
    assert before.multiply_adds == 4 * 64 * 18 + 6 * 4 * 36 + 6 * 7 + 7 * 5 + 5 * 3
    assert after.parameters < before.parameters
    assert after.multiply_adds < before.multiply_adds
    assert min(before.seconds, before.batch_seconds, after.seconds) > 0
    with pytest.raises(InputError, match="repeats"):
        mn.measure(module, x, repeats=0)


@pytest.mark.parametrize("name", ["mlp", "lenet-max", "stack-constant-norm"])
def test_weights_of_sequential_layers_are_read_back(name, tmp_path):
    module, network, gates, masks, x = read(name)
    small = cut(module, network, gates, masks)
    path = mn.export(small, tmp_path / "small.safetensors", x)
    sheet = yaml.safe_load((tmp_path / "small.layers.yaml").read_text())["network"]
    assert sheet["file"] == "small.safetensors"
    back = build_module(sheet["layers"], path, sheet["input_shape"])
    assert (run(back, x.float()) == run(small, x.float())).all()
    assert mn.read(path, sheet["layers"], sheet["input_shape"]).parameters == size(small)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.layers.yaml", "small.safetensors"]


def test_weights_of_other_modules_go_into_a_module_of_their_class(tmp_path):
    for name in ("residual", "depthwise"):
        module, network, gates, masks, x = read(name)
        small = cut(module, network, gates, masks)
        path = mn.export(small, tmp_path / "small.safetensors", x)
        back = rebuild(make(name, seed=9)[0], path)
        assert (run(back, x.float()) == run(small, x.float())).all()
        assert str(back) == str(small)
    assert "layers" in yaml.safe_load((tmp_path / "small.layers.yaml").read_text())["network"]
    with pytest.raises(NetworkError, match="the same tensors"):
        rebuild(Residual(), path)


def test_exported_programs_are_read_back(tmp_path):
    module, network, gates, masks, x = read("residual")
    small = cut(module, network, gates, masks)
    path = mn.export(small, tmp_path / "small.pt2", x)
    program = torch.export.load(path).module()
    assert np.abs(run(program, x[:3].float()) - run(small, x[:3].float())).max() < 1e-6
    assert mn.read(path).parameters == size(small)


def test_onnx_files_are_read_by_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module, network, gates, masks, x = read("lenet-max")
    small = cut(module, network, gates, masks)
    session = onnxruntime.InferenceSession(mn.export(small, tmp_path / "small.onnx", x))
    for count in (1, 4):
        given = x[:count].float()
        [found] = session.run(None, {"input": given.numpy()})
        assert np.abs(found - run(small, given)).max() < 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_files_that_cannot_be_written(tmp_path, monkeypatch):
    module, shape = make("mlp")
    x = torch.zeros(1, *shape)
    with pytest.raises(UnsupportedError, match="suffix"):
        mn.export(module, tmp_path / "small.bin", x)
    with pytest.raises(InputError, match="no folder"):
        mn.export(module, tmp_path / "none" / "small.pt2", x)
    monkeypatch.setattr("mipnet.pruning.smaller.export.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install mipnet\[onnx\]"):
        mn.export(module, tmp_path / "small.onnx", x)
    monkeypatch.setattr("torch.export.save", lambda *_: 1 / 0)
    with pytest.raises(UnsupportedError, match="cannot be written"):
        mn.export(module, tmp_path / "small.pt2", x)
    assert not list(tmp_path.iterdir())
