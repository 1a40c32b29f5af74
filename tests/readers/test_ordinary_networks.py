"""Ordinary torch modules are read from torch and from both ONNX exporters, equal to torch and to onnxruntime; the rest names a remedy."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError
from mipnet.readers.operator_list import operator_rows
from mipnet.readers.operators.table import READ_OPERATORS
from tests.operators_page import PAGE, page
from tests.readers.export_onnx import export
from tests.readers.onnx_graphs import runtime
from tests.readers.ordinary_networks import ORDINARY, REFUSED, build
from tests.sweep import marked

TOGETHER = ("mlp", "mlp-mixer", "u-net, transposed", "dueling", "select and index")
"""The networks of `make test`; all others are swept."""

NOT_EXPORTED = {("volume, adaptive", "new"): "Failed to convert the exported program", ("threshold", "old"): "non-zero threshold"}
"""Modules that an exporter cannot write, with the error."""

NOT_READ = {("threshold", "new"): r"operator `LessOrEqual`.*replace it by a ReLU, a maximum or a clip"}
"""Modules whose file holds operators that are refused, with the message."""


def cases(*exporters: str) -> list:
    return [each if each[0] in TOGETHER[:2] else marked(each) for each in [(name, how) for name in ORDINARY for how in exporters]]


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, *shape))


@pytest.mark.parametrize("name", [name if name in TOGETHER else marked(name) for name in ORDINARY])
def test_networks_are_read_from_torch(name: str) -> None:
    module, shape = build(name)
    network = mn.from_torch(module, torch.zeros(1, *shape))
    x = inputs(shape)
    wanted = module.double()(torch.tensor(x)).detach().numpy().reshape(3, *network.output_shape)
    assert np.abs(network.outputs(x) - wanted).max() < 1e-9 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize(("name", "exporter"), cases("old", "new"))
def test_networks_are_read_from_both_exporters(tmp_path: Path, name: str, exporter: str) -> None:
    module, shape = build(name)
    if (name, exporter) in NOT_EXPORTED:
        with pytest.raises(Exception, match=NOT_EXPORTED[name, exporter]):
            export(module, shape, dynamo=exporter == "new")
        return
    model = export(module, shape, dynamo=exporter == "new")
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    if (name, exporter) in NOT_READ:
        with pytest.raises(InputError, match=NOT_READ[name, exporter]):
            mn.from_onnx(path)
        return
    network, x = mn.from_onnx(path), inputs(shape).astype(np.float32)
    wanted = runtime(model, x).reshape(3, *network.output_shape)
    assert np.abs(network.outputs(x) - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line_with_a_remedy(name: str) -> None:
    make, shape, words = REFUSED[name]
    with pytest.raises(InputError, match=rf"operator `aten\.\w+\.\w+` \(node `\w+`.*{words}") as caught:
        mn.from_torch(make(), torch.zeros(1, *shape))
    assert "\n" not in str(caught.value)
    assert "adaptive_avg_pool2d" not in str(caught.value)  # no list of operators


def test_the_page_is_the_table() -> None:
    """``python -m tests.operators_page`` writes the page."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert len(operator_rows()) == len(READ_OPERATORS)


def test_both_readers_read_the_same_operators() -> None:
    one_sided = [each.name for each in READ_OPERATORS.values() if not each.torch or not each.onnx]
    assert one_sided == ["adaptive_maximum"]  # exporters write it as a MaxPool


def test_a_convolution_with_another_padding_is_pruned() -> None:
    """The padding is a node of its own; the convolution keeps the name of its module, by which it is cut."""
    torch.manual_seed(0)
    parts = {"conv": torch.nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), "act": torch.nn.ReLU()}
    module = torch.nn.Sequential(OrderedDict({**parts, "flat": torch.nn.Flatten(), "fc": torch.nn.Linear(256, 2)})).eval()
    network = mn.from_torch(module, torch.zeros(1, 2, 8, 8))
    assert [node.name for node in network.nodes] == ["gather1", "conv", "act", "flat", "fc"]
    (gate,) = mn.find_gates(network, "all")
    masks = xr.Dataset({gate.name: (gate.dim, np.array([True, False, True, True]))})
    small = mn.prune(module, masks, torch.zeros(1, 2, 8, 8))
    assert small.conv.weight.shape[0] == 3
    x = torch.tensor(inputs((2, 8, 8)))
    silenced = network.forward(x, {"act": lambda value: value * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None, None]})
    np.testing.assert_allclose(small.double()(x).detach().numpy(), silenced, atol=1e-5)
