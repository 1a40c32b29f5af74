"""Networks from files: .pt2, .safetensors, state dicts; no code in them is run, and every broken file raises an error of one line."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mipnet.errors import InputError, NetworkError, UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import Network
from mipnet.readers.files import build_module, read, read_pt2, read_safetensors
from mipnet.readers.inline_layers import INLINE_LAYERS
from mipnet.readers.torch import quiet

Entry = dict[str, Any]
SHAPE = (1, 8, 8)
INLINE: list[Entry] = [
    {"name": "conv", "type": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": [3, 3], "padding": 1},
    {"name": "bn", "type": "BatchNorm2d", "num_features": 2},
    {"name": "act", "type": "Hardtanh", "min_val": 0, "max_val": 4},
    {"name": "pool", "type": "MaxPool2d", "kernel_size": 2},
    {"name": "flat", "type": "Flatten"},
    {"name": "drop", "type": "Dropout", "p": 0.3},
    {"name": "fc", "type": "Linear", "in_features": 32, "out_features": 3},
]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    parts = (
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.Hardtanh(0, 4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32, 3),
    )
    names = [entry["name"] for entry in INLINE]
    return nn.Sequential(OrderedDict(zip(names, parts, strict=True))).eval()


def same(network: Network, module: nn.Module) -> bool:
    x = torch.randn(3, *network.input_shape, dtype=torch.float64)
    with torch.no_grad():
        return bool(np.abs(network.forward(x) - module.double()(x).numpy()).max() < 1e-10)


def export(path: Path, module: nn.Module, shape: tuple[int, ...], samples: int = 2, dynamic: bool = False) -> Path:
    with quiet():
        sizes = {"dynamic_shapes": ({0: torch.export.Dim("samples")},)} if dynamic else {}
        torch.export.save(torch.export.export(module, (torch.randn(samples, *shape),), **sizes), path)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **extra: bytes) -> Path:
    """The archive with some entries changed, removed or added."""
    with zipfile.ZipFile(path) as archive:
        content = {name: change(name, archive.read(name)) for name in archive.namelist()}
    root = next(iter(content)).split("/")[0]
    content |= {f"{root}/{name}": data for name, data in extra.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return path


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.register_buffer("mean", torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return (self.fc((x - self.mean) * 2).relu_() + x).view(x.size(0), -1, 2)


class TestPt2:
    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize("samples", [1, 3])
    @pytest.mark.parametrize(("module", "shape"), [(small(), SHAPE), (Residual(), (6,))])
    def test_equals_torch(self, tmp_path: Path, module: nn.Module, shape: tuple[int, ...], samples: int, dynamic: bool) -> None:
        module = module.float()
        network = read(export(tmp_path / "net.pt2", module, shape, max(samples, 1 + dynamic), dynamic))
        assert same(network, module)

    def test_names_and_notes_survive(self, tmp_path: Path) -> None:
        module = nn.Sequential(small(), nn.Softmax(1))
        network = read_pt2(export(tmp_path / "net.pt2", module, SHAPE))
        assert [node.name for node in network.nodes] == ["0.conv", "0.bn", "0.act", "0.pool", "0.flat", "0.fc"]
        assert "softmax was taken off" in network.notes[0]
        assert network.softmax == FinalSoftmax("softmax", (0,))

    def test_training_mode_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedError, match="running statistics"):
            read(export(tmp_path / "net.pt2", small().train(), SHAPE))

    def test_an_unknown_operator_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedError, match=r"aten\.sigmoid\.default"):
            read(export(tmp_path / "net.pt2", nn.Sigmoid(), (6,)))

    def test_two_inputs_are_refused(self, tmp_path: Path) -> None:
        with quiet():
            torch.export.save(torch.export.export(nn.Bilinear(2, 2, 2), (torch.ones(1, 2), torch.ones(1, 2))), tmp_path / "net.pt2")
        with pytest.raises(UnsupportedError, match="2 input and 1 output tensors"):
            read(tmp_path / "net.pt2")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def in_json(key: str, value: Any) -> Callable[[str, bytes], bytes]:
    """Set every entry of that key in the archive's JSON files."""

    def put(content: Any) -> Any:
        if isinstance(content, dict):
            return {k: value if k == key else put(v) for k, v in content.items()}
        return [put(v) for v in content] if isinstance(content, list) else content

    return lambda name, data: json.dumps(put(json.loads(data))).encode() if name.endswith(".json") else data


def as_is(name: str, data: bytes) -> bytes:
    return data


TREE = json.dumps([1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}])


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        (as_is, {"data/weights/model.pt": pickle.dumps(Bomb())}, "no plain tensor and could run code"),
        (as_is, {"data/constants/opaque_obj_0": pickle.dumps(Bomb())}, "no plain tensor and could run code"),
        (as_is, {"data/constants/custom_obj_0": b""}, "no plain tensor and could run code"),
        (as_is, {"data/aotinductor/model/a.so": b""}, "no plain tensor and could run code"),
        (in_json("use_pickle", True), {}, "pickled tensor"),
        (in_json("target", "torch.load"), {}, r"calls `torch\.load`"),
        (in_json("target", "torch.ops.aten.from_file.default"), {}, "aten.from_file.default"),
        (in_json("expr_str", "__import__('os')"), {}, "as a expr_str"),
        (in_json("in_spec", TREE), {}, "as a in_spec"),
        (in_json("name", "x; import os"), {}, "as a name"),
        (lambda n, d: pickle.dumps(Bomb()) if "sample_inputs" in n else d, {}, "cannot be read"),
        (lambda n, d: None if "models/" in n else d, {}, "no exported program"),
        (as_is, {"models/other.json": b"{}"}, "no exported program"),
        (lambda n, d: d[:50] if n.endswith("model.json") else d, {}, "cannot be read"),
        (lambda n, d: None if "weight_0" in n else d, {}, "cannot be read"),
        (lambda n, d: b"{}" if n.endswith("model.json") else d, {}, "cannot be read"),
    ],
)
def test_a_crafted_archive_is_refused_and_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str, bytes], bytes | None],
    extra: dict[str, bytes],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewrite(export(tmp_path / "net.pt2", small(), SHAPE, dynamic=True), change, **extra)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()


class TestBrokenPt2:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(NetworkError, match="no file"):
            read(tmp_path / "none.pt2")

    @pytest.mark.parametrize(("data", "kind"), [(b"", "no archive"), (b"hello", "no archive"), (pickle.dumps([1]), "a pickle")])
    def test_no_archive(self, tmp_path: Path, data: bytes, kind: str) -> None:
        (tmp_path / "net.pt2").write_bytes(data)
        with pytest.raises(NetworkError, match=kind + r".*torch\.export\.save"):
            read(tmp_path / "net.pt2")

    def test_cut_off(self, tmp_path: Path) -> None:
        path = export(tmp_path / "net.pt2", small(), SHAPE)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(NetworkError, match="cut off"):
            read(path)

    def test_a_pickled_module(self, tmp_path: Path) -> None:
        torch.save(small(), tmp_path / "net.pt2")
        with pytest.raises(NetworkError, match=r"written by `torch\.save`, a pickle"):
            read(tmp_path / "net.pt2")


def saved(folder: Path, suffix: str, weights: dict[str, Tensor]) -> Path:
    path = folder / f"net{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
class TestWeights:
    def test_equals_torch(self, tmp_path: Path, suffix: str) -> None:
        network = read(saved(tmp_path, suffix, small().state_dict()), INLINE, SHAPE)
        assert same(network, small())
        assert [node.name for node in network.nodes] == ["conv", "bn", "act", "pool", "flat", "fc"]

    def test_the_module_has_the_weights(self, tmp_path: Path, suffix: str) -> None:
        module = build_module(INLINE, saved(tmp_path, suffix, small().double().state_dict()), SHAPE)
        assert all(torch.equal(value, small().double().state_dict()[key]) for key, value in module.state_dict().items())
        assert not module.training

    def test_counts_of_batches_may_be_missing(self, tmp_path: Path, suffix: str) -> None:
        weights = {key: value for key, value in small().state_dict().items() if "num_batches" not in key}
        assert same(read(saved(tmp_path, suffix, weights), INLINE, SHAPE), small())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fc.bias": None}, r"lacks `fc\.bias`; expected conv\.weight"),
            ({"fc.extra": torch.ones(1)}, r"has `fc\.extra` in addition"),
            ({"fc.bias": None, "fc.b": torch.ones(3)}, r"lacks `fc\.bias` and has `fc\.b` in addition"),
            ({"fc.weight": torch.ones(3, 31)}, r"`fc\.weight` of .* has shape \(3, 31\); the layers expect \(3, 32\)"),
            ({"fc.weight": torch.full((3, 32), torch.nan)}, r"parameter `fc\.weight` holds 96 NaN"),
        ],
    )
    def test_wrong_weights(self, tmp_path: Path, suffix: str, change: dict[str, Tensor | None], message: str) -> None:
        weights = {key: value for key, value in {**small().state_dict(), **change}.items() if value is not None}
        with pytest.raises(NetworkError, match=message):
            read(saved(tmp_path, suffix, weights), INLINE, SHAPE)

    def test_broken(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / f"net{suffix}").write_bytes(b"no tensors at all")
        with pytest.raises(NetworkError, match="holds no tensors that can be read safely"):
            read(tmp_path / f"net{suffix}", INLINE, SHAPE)

    def test_without_layers(self, tmp_path: Path, suffix: str) -> None:
        path = saved(tmp_path, suffix, small().state_dict())
        with pytest.raises(NetworkError, match="holds weights only; give `layers`"):
            read(path)
        with pytest.raises(NetworkError, match="give `input_shape`"):
            read(path, INLINE)

    def test_missing(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(NetworkError, match="no file"):
            read(tmp_path / f"none{suffix}", INLINE, SHAPE)
        with pytest.raises(NetworkError, match="no file"):
            build_module(INLINE, tmp_path / f"none{suffix}", SHAPE)


@pytest.mark.parametrize("content", [Bomb(), [torch.ones(1)], {"fc.weight": "text"}])
def test_a_pickle_that_is_no_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "net.pt")
    with pytest.raises(NetworkError, match=r"more than tensors \(`getattr`\).*could run code|expected a state dict"):
        read("net.pt", INLINE, SHAPE)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no layers"),
        (["Linear"], "layer 1 is 'Linear'; expected a mapping"),
        ([{"name": "fc"}], "expected a mapping with `name`, `type`"),
        ([{"name": "a", "type": "Sigmoid"}], "layer `a` has type `Sigmoid`; expected one of Linear, Conv2d"),
        (
            [{"name": "a", "type": "Linear", "in_features": 2, "outputs": 3}],
            "Linear has no argument `outputs`; expected one of in_features, out_features, bias$",
        ),
        ([{"name": "a", "type": "Linear", "in_features": 2}], "Linear lacks `out_features`$"),
        ([{"name": "a", "type": "Linear", "in_features": "x", "out_features": 2}], "Linear got in_features='x'; expected a whole number"),
        ([{"name": "a", "type": "Linear", "in_features": 2, "out_features": 2, "device": "meta"}], "no argument `device`"),
        ([{"name": "a", "type": "Identity", "anything": 2}], "Identity has no argument `anything`; it takes none"),
        ([{"name": "a", "type": "ReLU"}, {"name": "a", "type": "ReLU"}], "layer 2 is called `a`"),
        ([{"name": "a.b", "type": "ReLU"}], "without dots"),
        ([{"name": "train", "type": "ReLU"}], "not a method of modules"),
    ],
)
def test_wrong_layers(tmp_path: Path, layers: Any, message: str) -> None:
    path = saved(tmp_path, ".pt", {})
    with pytest.raises(InputError, match=message):
        read_safetensors(path, layers, (2,))


@pytest.mark.parametrize("shape", [(), (0, 2), ("x",)])
def test_wrong_input_shape(tmp_path: Path, shape: Any) -> None:
    with pytest.raises(InputError, match=r"expected the positive sizes of one sample|expected a list of whole numbers"):
        build_module([{"name": "a", "type": "ReLU"}], saved(tmp_path, ".pt", {}), shape)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"shape \(1, 9, 9\).*`?fc|shapes cannot be multiplied"):
        read(saved(tmp_path, ".pt", small().state_dict()), INLINE, (1, 10, 10))


def test_layers_without_names_are_numbered(tmp_path: Path) -> None:
    layers = [{"type": "Linear", "in_features": 2, "out_features": 2}, {"type": "ReLU"}]
    network = read(saved(tmp_path, ".pt", {"0.weight": torch.eye(2), "0.bias": torch.ones(2)}), layers, [2])
    assert [node.name for node in network.nodes] == ["fc1", "relu1"]


@pytest.mark.parametrize("kind", INLINE_LAYERS)
def test_every_type_can_be_built(tmp_path: Path, kind: str) -> None:
    given: dict[str, Entry] = {
        "Linear": {"in_features": 4, "out_features": 2},
        "Conv2d": {"in_channels": 2, "out_channels": 2, "kernel_size": 1},
        "BatchNorm1d": {"num_features": 2},
        "BatchNorm2d": {"num_features": 2},
        "MaxPool2d": {"kernel_size": [2, 1]},
        "AvgPool2d": {"kernel_size": [2, 1]},
        "AdaptiveAvgPool2d": {"output_size": [1, 2]},
        "Softmax": {"dim": 1},
        "LogSoftmax": {"dim": 1},
    }
    entry = {"name": "it", "type": kind, **given.get(kind, {})}
    weights = nn.Sequential(OrderedDict(it=INLINE_LAYERS[kind](**given.get(kind, {})))).state_dict()
    assert isinstance(build_module([entry], saved(tmp_path, ".pt", weights), (2, 2, 2)), nn.Sequential)


@pytest.mark.parametrize(
    ("name", "message"), [("net.h5", "suffix `.h5`; expected .pt2, .onnx"), ("net.gz", "suffix `.gz`"), ("net", "`net` has no suffix")]
)
def test_other_suffixes(name: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read(name)
