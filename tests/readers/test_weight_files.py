"""Weights in files: numbers that are codes are refused by name, and names that wrappers changed are understood."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import Tensor, nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.errors import InputError, NetworkError, UnsupportedError
from mipnet.pruning.smaller.export import rebuild
from tests.readers.onnx_graphs import model, numbers

State = dict[str, Tensor]
LAYERS = [
    {"name": "conv", "type": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 2},
    {"name": "bn", "type": "BatchNorm2d", "num_features": 2},
    {"name": "relu", "type": "ReLU"},
    {"name": "flat", "type": "Flatten"},
    {"name": "fc", "type": "Linear", "in_features": 8, "out_features": 3},
]


def module() -> nn.Sequential:
    torch.manual_seed(0)
    parts = OrderedDict(conv=nn.Conv2d(1, 2, 2), bn=nn.BatchNorm2d(2), relu=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(8, 3))
    return nn.Sequential(parts).eval()


MODULE = module()
X = np.random.default_rng(0).normal(size=(4, 1, 3, 3))
with torch.no_grad():
    WANTED = module().double()(torch.tensor(X)).numpy()


def saved(folder: Path, state: State, suffix: str = ".pt") -> Path:
    path = folder / f"w{suffix}"
    if suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def quantised(value: Tensor, *, per_channel: bool = False) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not per_channel:
            return torch.quantize_per_tensor(value, 0.01, 0, torch.qint8)
        scales, zeros = torch.full((len(value),), 0.01), torch.zeros(len(value), dtype=torch.int)
        return torch.quantize_per_channel(value, scales, zeros, 0, torch.qint8)


CODES = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
CODES += [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", CODES)
def test_codes_are_refused_by_name(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    state = {key: (value * 100).round() for key, value in MODULE.state_dict().items()}
    kind = str(dtype).removeprefix("torch.")
    for name in ("conv.weight", "fc.bias", "bn.running_var"):
        path = saved(tmp_path, {**MODULE.state_dict(), name: state[name].to(dtype)}, suffix)
        with pytest.raises(UnsupportedError, match=rf"`{name}` of `.*w\{suffix}` is of type {kind}: such numbers are codes") as caught:
            mn.read(path, LAYERS, (1, 3, 3))
        assert "\n" not in str(caught.value)
        with pytest.raises(UnsupportedError, match=f"`{name}`"):
            rebuild(MODULE, path)


OTHERS: dict[str, tuple[Callable[[State], dict[str, object]], str]] = {
    "quantised tensors": (lambda s: {**s, "fc.weight": quantised(s["fc.weight"])}, "`fc.weight` of .* is of type qint8"),
    "quantised by channel": (lambda s: {**s, "fc.weight": quantised(s["fc.weight"], per_channel=True)}, "is of type qint8"),
    "packed": (
        lambda s: {**s, "fc._packed_params._packed_params": (s["fc.weight"], None)},
        "`fc._packed_params.*a part of a quantised net",
    ),
    "packed type": (lambda s: {**s, "fc._packed_params.dtype": torch.qint8}, "which is a dtype: a part of a quantised network"),
    "words of 32 bits": (lambda s: {**s, "fc.qweight": torch.zeros(1, 3, dtype=torch.int32)}, "`fc.qweight` of .* is of type int32"),
    "complex": (lambda s: {**s, "fc.weight": s["fc.weight"] + 0j}, "`fc.weight` of .* is of type torch.complex64; expected real"),
    "sparse": (lambda s: {**s, "fc.weight": s["fc.weight"].to_sparse()}, "has the layout torch.sparse_coo; expected a dense"),
    "NaN": (lambda s: {**s, "fc.weight": s["fc.weight"] * torch.nan}, "`fc.weight` holds 24 NaN or infinite"),
    "infinity": (lambda s: {**s, "bn.running_mean": torch.tensor([0.0, torch.inf])}, "`bn.running_mean` holds 1 NaN or infinite"),
    "a number": (lambda s: {**s, "epoch": 3}, "holds `epoch`, which is a int; expected a state dict"),
    "a part": (lambda s: {"model": s}, "holds `model`, which is a OrderedDict.*save the part `model` alone"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_weight_is_told(tmp_path: Path, name: str) -> None:
    make, words = OTHERS[name]
    path = saved(tmp_path, make(MODULE.state_dict()))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words) as caught:
        mn.read(path, LAYERS, (1, 3, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_weights_of_any_size_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    ours = module().to(dtype)
    found = mn.read(saved(tmp_path, ours.state_dict()), LAYERS, (1, 3, 3)).forward(X)
    with torch.no_grad():
        assert np.allclose(found, ours.double()(torch.tensor(X)).numpy())


@pytest.mark.parametrize(("scale", "said"), [(100.0, True), (1.0, False), (None, False)])
def test_codes_in_a_floating_point_type_are_noted(tmp_path: Path, scale: float | None, said: bool) -> None:
    state = {key: value if scale is None else (value * scale).round() for key, value in MODULE.state_dict().items()}
    notes = mn.read(saved(tmp_path, state), LAYERS, (1, 3, 3)).notes
    assert any("all weights are whole numbers" in note and "multiply them by its scales" in note for note in notes) is said


@pytest.mark.parametrize("value", [np.int8, np.uint8, bool, torch.int8, torch.bool, torch.float8_e5m2])
def test_layers_take_no_codes(value: type) -> None:
    given = np.eye(2).astype(value) if not isinstance(value, torch.dtype) else torch.eye(2).to(value)
    with pytest.raises(NetworkError, match="whose numbers are codes"):
        mn.Dense(given)
    with pytest.raises(NetworkError, match="whose numbers are codes"):
        mn.Conv2d(torch.ones(1, 1, 1, 1), torch.ones(1).to(torch.uint8))
    assert mn.Dense([[1, 0], [0, 1]]).weight.dtype == torch.float64  # numbers written by hand


def test_whole_numbers_that_a_module_computes_with_are_numbers() -> None:
    class Scaled(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.register_buffer("codes", torch.tensor([[-3, 4], [5, -6]]).to(dtype))
            self.register_buffer("mask", torch.tensor([1, 0]).to(dtype))
            self.scale = nn.Parameter(torch.tensor(0.1))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.codes.to(x.dtype) * self.scale) * self.mask

    for dtype in (torch.int8, torch.int64):
        found = mn.from_torch(Scaled(dtype), torch.zeros(1, 2)).forward([[1.0, 2.0]])
        assert np.allclose(found, [[0.5, 0.0]])


def test_a_quantised_module_is_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedError, match="`0` is a quantised Linear, whose numbers are codes"):
        mn.from_torch(small, torch.zeros(1, 2))


QUANTISED_GRAPHS = {
    "DequantizeLinear": [("DequantizeLinear", ["c", "s", "z"], "d", {}), ("MatMul", ["x", "d"], "y", {})],
    "QLinearMatMul": [("QuantizeLinear", ["x", "s", "z"], "q", {}), ("QLinearMatMul", ["q", "s", "z", "c", "s", "z", "s", "z"], "y", {})],
    "MatMulInteger": [("DynamicQuantizeLinear", ["x"], "q", {}), ("MatMulInteger", ["q", "c"], "y", {})],
}


@pytest.mark.parametrize("name", QUANTISED_GRAPHS)
def test_quantised_graphs_of_onnx_are_named(tmp_path: Path, name: str) -> None:
    constants = {"c": np.ones((4, 2), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    path = tmp_path / "q.onnx"
    path.write_bytes(model(QUANTISED_GRAPHS[name], constants, (1, 4)).SerializeToString())
    with pytest.raises(UnsupportedError, match=r"operator `\w+` .* cannot be read; the network is quantised, and its numbers are codes"):
        mn.read(path)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.BOOL])
def test_initialisers_of_codes_are_no_weights(tmp_path: Path, kind: int) -> None:
    built = model([("Gemm", ["x", "w"], "y", {})], {"w": numbers(4, 2)}, (1, 4))
    built.graph.initializer[0].CopyFrom(helper.make_tensor("w", kind, [4, 2], [1] * 8))
    path = tmp_path / "q.onnx"
    path.write_bytes(built.SerializeToString())
    with pytest.raises(InputError, match=r"is of type|not valid ONNX"):
        mn.read(path)


def test_codes_with_their_scale_are_what_the_graph_says(tmp_path: Path) -> None:
    """Cast and Mul of constants are weights: onnxruntime computes the same."""
    nodes = [("Cast", ["c"], "f", {"to": 1}), ("Mul", ["f", "s"], "w", {}), ("MatMul", ["x", "w"], "y", {})]
    codes = np.array([[-3, 4], [5, -128]], np.int8)
    path = tmp_path / "q.onnx"
    path.write_bytes(model(nodes, {"c": codes, "s": np.float32(0.5)}, (1, 2)).SerializeToString())
    assert (mn.read(path).forward(np.eye(2)) == codes / 2).all()


# Names


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module.", "net.backbone.", "state_dict."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_are_left_out_and_named(tmp_path: Path, prefix: str, suffix: str) -> None:
    path = saved(tmp_path, {prefix + key: value for key, value in MODULE.state_dict().items()}, suffix)
    network = mn.read(path, LAYERS, (1, 3, 3))
    assert np.allclose(network.forward(X), WANTED)
    (note,) = network.notes
    assert "left out of the names of the weights in" in note
    assert all(f"{part}." in note for part in prefix.strip(".").split("."))
    assert torch.equal(rebuild(MODULE, path).fc.weight, MODULE.fc.weight)


def test_wrappers_inside_of_names(tmp_path: Path) -> None:
    state = {
        key.replace("conv.", "conv._orig_mod.").replace("fc.", "_fsdp_wrapped_module.fc."): v for key, v in MODULE.state_dict().items()
    }
    network = mn.read(saved(tmp_path, state), LAYERS, (1, 3, 3))
    assert np.allclose(network.forward(X), WANTED)
    assert "`_fsdp_wrapped_module.`, `_orig_mod.`" in network.notes[0]


def test_the_wrappers_of_torch(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(module())
    compiled = torch.compile(module(), backend="eager")
    for wrapped, words in (
        (averaged, "`module.`, `n_averaged`"),
        (compiled, "`_orig_mod.`"),
        (nn.DataParallel(compiled), "`_orig_mod.`, `module.`"),
    ):
        network = mn.read(saved(tmp_path, wrapped.state_dict()), LAYERS, (1, 3, 3))
        assert np.allclose(network.forward(X), WANTED)
        assert network.notes[0].endswith(words)


def test_names_that_still_differ_are_refused(tmp_path: Path) -> None:
    plain = MODULE.state_dict()
    wrong = [
        {("module." if "fc" in key else "") + key: value for key, value in plain.items()},  # some have the prefix
        {"module." + key: value for key, value in plain.items() if key != "fc.bias"},
        {"module." + key.replace("fc", "head"): value for key, value in plain.items()},
        {},
    ]
    for state in wrong:
        with pytest.raises(NetworkError, match="lacks"):
            mn.read(saved(tmp_path, state), LAYERS, (1, 3, 3))
    assert mn.read(saved(tmp_path, plain), LAYERS, (1, 3, 3)).notes == ()


def test_a_layer_may_be_called_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(OrderedDict(module=nn.Linear(2, 2)))
    layers = [{"name": "module", "type": "Linear", "in_features": 2, "out_features": 2}]
    for prefix in ("", "module."):
        network = mn.read(saved(tmp_path, {prefix + key: value for key, value in inner.state_dict().items()}), layers, (2,))
        assert np.allclose(network.forward(np.eye(2)), inner(torch.eye(2)).detach().numpy())


def test_the_command_line_shows_the_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, {"module." + key: value for key, value in MODULE.state_dict().items()})
    data = "{source: npz, file: a.npz, total: 1, holdout: none}"
    Path("m.yaml").write_text(
        f"mipnet: 1\ntask: importance\nnetwork: {{file: w.pt, input_shape: [1, 3, 3], layers: {json.dumps(LAYERS)}}}\ndata: {data}\n"
    )
    np.savez("a.npz", images=X, labels=np.zeros(4, int))
    assert main(["inspect", "m.yaml"]) == 0
    assert "left out of the names" in " ".join(capsys.readouterr().out.split())
