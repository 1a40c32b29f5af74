"""Files whose content does not fit into the memory limit are refused before it is made, with the figures."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import MemoryLimitReached
from mipnet.readers.image_sources import read_idx
from tests.limits.room import room

LAYERS = [{"name": "fc", "type": "Linear", "in_features": 1400, "out_features": 1400}]


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    found = nn.Sequential()
    found.add_module("fc", nn.Linear(1400, 1400))
    return found.eval()


def as_module(folder: Path) -> mn.Network:
    return mn.from_torch(linear(), torch.zeros(1, 1400))


def as_weights(folder: Path) -> mn.Network:
    torch.save(linear().state_dict(), folder / "net.pt")
    return mn.read(folder / "net.pt", LAYERS, (1400,))


def as_pt2(folder: Path) -> mn.Network:
    torch.export.save(torch.export.export(linear(), (torch.zeros(1, 1400),)), folder / "net.pt2")
    return mn.read(folder / "net.pt2")


def as_onnx(folder: Path) -> mn.Network:
    onnx = pytest.importorskip("onnx")
    weight = np.ones((1400, 1400), dtype=np.float32)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [info("x", onnx.TensorProto.FLOAT, [1, 1400])],
        [info("y", onnx.TensorProto.FLOAT, [1, 1400])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    return mn.read(folder / "net.onnx")


@pytest.mark.parametrize("read", [as_module, as_weights, as_pt2, as_onnx])
def test_a_network_that_would_not_fit_is_refused_with_its_parameters(read: Callable[[Path], mn.Network], tmp_path: Path) -> None:
    assert read(tmp_path).input_shape == (1400,)
    said = r"^the network of .* \(1,96\d,\d00 parameters\) would take about 88.\d MB; .*: give a smaller network, or raise `memory_limit`$"
    with room(40e6), pytest.raises(MemoryLimitReached, match=said):
        read(tmp_path)


def test_an_inline_layer_that_nobody_could_store_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "net.pt")
    layers = [{"name": "huge", "type": "Linear", "in_features": 300_000, "out_features": 300_000}]
    said = r"^the network of layer `huge` \(90,000,300,000 parameters\) would take about 4.05 TB; "
    with pytest.raises(MemoryLimitReached, match=said) as raised:
        mn.read(tmp_path / "net.pt", layers, (300_000,))
    assert raised.value.keys == ("layers", 0)


def test_a_constant_that_a_file_computes_counts(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    info, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [node("ConstantOfShape", ["n"], ["w"], name="fill"), node("ReduceSum", ["w"], ["s"], keepdims=0), node("Add", ["x", "s"], ["y"])],
        "net",
        [info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [info("y", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(np.array([5000, 2000]), "n")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx")
    said = r"^the constant that ConstantOfShape `fill` computes \(10,000,000 elements\) would take about 240 MB; "
    with room(150e6), pytest.raises(MemoryLimitReached, match=said):
        mn.read(tmp_path / "net.onnx")


@pytest.mark.sweep
def test_images_that_would_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=np.zeros((2000, 1000), dtype=np.uint8), labels=np.zeros(2000, dtype=np.int64))
    assert len(mn.load("npz", tmp_path, file="images.npz")) == 2000
    with (
        room(25e6),
        pytest.raises(MemoryLimitReached, match=r"^2,000 images of 1,000 numbers would take about 48 MB"),
    ):
        mn.load("npz", tmp_path, file="images.npz")
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((20, 2_000_000), dtype=np.uint8), labels=np.zeros(20, dtype=np.int64))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**6
    said = r"^the arrays of `.*bomb.npz` would take about 40 MB; .*: give fewer images"
    with room(20e6), pytest.raises(MemoryLimitReached, match=said):
        mn.load("npz", tmp_path, file="bomb.npz")


@pytest.mark.sweep
def test_a_compressed_file_is_unpacked_no_further_than_memory_goes(tmp_path: Path) -> None:
    header = b"\x00\x00\x08\x02" + (4000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(header + bytes(40_000_000)))
    assert read_idx(tmp_path / "bomb.gz").shape == (4000, 10_000)
    said = r"^the unpacked content of `.*bomb.gz` is larger than .* MB, which would fit into memory: give a smaller file, or raise"
    with room(60e6), pytest.raises(MemoryLimitReached, match=said):
        read_idx(tmp_path / "bomb.gz")
    (tmp_path / "plain").write_bytes(header + bytes(40_000_000))
    with (
        room(20e6),
        pytest.raises(MemoryLimitReached, match=r"^the content of `.*plain` would take about 40 MB"),
    ):
        read_idx(tmp_path / "plain")
