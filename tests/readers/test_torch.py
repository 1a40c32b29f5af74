"""The torch reader: networks equal to torch's, names, origins, notes, and an error of one line for everything that is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipnet.errors import InputError, NetworkError, UnsupportedError
from mipnet.layers import Add, Clip, Concat, Conv2d, Dense, LeakyReLU, MaxPool2d, Permute, ReLU, Reshape, Scale
from mipnet.network.graph import Layer, Network
from mipnet.readers.conversion import Value
from mipnet.readers.torch import from_torch
from mipnet.readers.torch_call import TORCH_RULES, TorchCall, reads


class Fn(nn.Module):
    """A module whose forward is a function of its child modules, parameters and the input."""

    def __init__(self, forward: Callable[..., Any], buffers: dict[str, Tensor] | None = None, **parts: Any) -> None:
        super().__init__()
        self.body = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        for name, buffer in (buffers or {}).items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def norm(kind: type[Any], channels: int, **given: Any) -> Any:
    """A batch norm with statistics and weights that are not the defaults."""
    layer = kind(channels, **given)
    with torch.no_grad():
        for name in ("running_mean", "weight", "bias"):
            if getattr(layer, name) is not None:
                getattr(layer, name).copy_(torch.randn(channels))
        layer.running_var.copy_(torch.rand(channels) + 0.1)
    return layer


def fn(forward: Callable[..., Any], **parts: Any) -> Callable[[], nn.Module]:
    return lambda: Fn(
        forward, **{key: part() if callable(part) and not isinstance(part, nn.Module) else part for key, part in parts.items()}
    )


def seq(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(part() for part in parts))


def conv(i: int, o: int, k: Any, **given: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(i, o, k, **given)


def fc(i: int, o: int, **given: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(i, o, **given)


def mod(kind: Callable[..., nn.Module], *args: Any, **given: Any) -> Callable[[], nn.Module]:
    return lambda: kind(*args, **given)


VEC, IMG, ODD = (6,), (2, 8, 8), (2, 7, 9)
W = torch.linspace(-1, 1, 24).reshape(6, 4)
V = torch.linspace(-1, 1, 6)

ORDINARY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (seq(fc(6, 5), nn.ReLU, fc(5, 3)), VEC),
    "flatten-first": (seq(nn.Flatten, fc(128, 5), nn.ReLU, fc(5, 3)), IMG),
    "no-bias": (seq(fc(6, 5, bias=False), nn.ReLU, fc(5, 3)), VEC),
    "dropout": (seq(fc(6, 5), nn.ReLU, nn.Dropout, fc(5, 3)), VEC),
    "batchnorm1d": (seq(fc(6, 5), lambda: norm(nn.BatchNorm1d, 5), nn.ReLU, fc(5, 3)), VEC),
    "leaky": (seq(fc(6, 5), mod(nn.LeakyReLU, 0.2), fc(5, 3)), VEC),
    "relu-first": (seq(nn.ReLU, fc(6, 5), nn.ReLU, fc(5, 3)), VEC),
    "conv-net": (seq(conv(2, 3, 3), nn.ReLU, nn.Flatten, fc(108, 3)), IMG),
    "residual": (fn(lambda m, x: m.c(torch.relu(x + m.b(torch.relu(m.a(x))))), a=fc(6, 6), b=fc(6, 6), c=fc(6, 2)), VEC),
}

CONVS = {
    "conv-stride": (conv(2, 4, 3, stride=2), IMG),
    "conv-stride-pair": (conv(2, 4, 3, stride=(1, 3), padding=(2, 0)), ODD),
    "conv-padding": (conv(2, 4, 3, padding=1), IMG),
    "conv-same-odd": (conv(2, 4, 3, padding="same"), ODD),
    "conv-same-even": (conv(2, 4, 2, padding="same"), IMG),
    "conv-same-dilated": (conv(2, 4, (2, 4), padding="same", dilation=(3, 1)), ODD),
    "conv-valid": (conv(2, 4, 3, padding="valid"), IMG),
    "conv-dilation": (conv(2, 4, 3, dilation=2), IMG),
    "conv-groups": (conv(2, 4, 3, groups=2), IMG),
    "conv-depthwise": (conv(2, 2, 3, groups=2, bias=False), ODD),
    "conv-rectangle": (conv(2, 3, (3, 1), stride=(2, 1), dilation=(1, 2)), ODD),
    "conv-1x1": (conv(2, 3, 1), ODD),
    "batchnorm2d": (seq(conv(2, 3, 3), lambda: norm(nn.BatchNorm2d, 3, eps=1e-3), nn.ReLU), IMG),
    "batchnorm2d-plain": (seq(conv(2, 3, 3), lambda: norm(nn.BatchNorm2d, 3, affine=False)), IMG),
    "batchnorm2d-first": (lambda: norm(nn.BatchNorm2d, 2), IMG),
    "batchnorm1d-sequence": (seq(mod(nn.Flatten, 2), lambda: norm(nn.BatchNorm1d, 2), nn.Flatten), IMG),
}

POOLS = {
    "max": (mod(nn.MaxPool2d, 2), IMG),
    "max-overlap": (mod(nn.MaxPool2d, 3, stride=1), IMG),
    "max-padded": (mod(nn.MaxPool2d, 3, stride=2, padding=1), ODD),
    "max-dilated": (mod(nn.MaxPool2d, 2, stride=1, dilation=(2, 3)), ODD),
    "max-ceil": (mod(nn.MaxPool2d, 2, ceil_mode=True), ODD),
    "max-ceil-padded": (mod(nn.MaxPool2d, 3, stride=2, padding=1, ceil_mode=True), IMG),
    "max-rectangle": (mod(nn.MaxPool2d, (2, 3)), ODD),
    "avg": (mod(nn.AvgPool2d, 2), IMG),
    "avg-counted": (mod(nn.AvgPool2d, 3, stride=2, padding=1), ODD),
    "avg-uncounted": (mod(nn.AvgPool2d, 3, stride=2, padding=1, count_include_pad=False), ODD),
    "avg-ceil": (mod(nn.AvgPool2d, 2, ceil_mode=True), ODD),
    "avg-ceil-counted": (mod(nn.AvgPool2d, 3, stride=2, padding=1, ceil_mode=True), IMG),
    "avg-ceil-uncounted": (mod(nn.AvgPool2d, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), IMG),
    "avg-divisor": (mod(nn.AvgPool2d, (2, 3), divisor_override=5), ODD),
    "adaptive-1": (mod(nn.AdaptiveAvgPool2d, 1), ODD),
    "adaptive-uneven": (mod(nn.AdaptiveAvgPool2d, (3, 5)), ODD),
    "adaptive-none": (mod(nn.AdaptiveAvgPool2d, (None, 4)), ODD),
    "mean-spatial": (fn(lambda m, x: x.mean((2, 3))), IMG),
    "mean-keep": (fn(lambda m, x: x.mean(dim=(-1, -2), keepdim=True)), IMG),
}

ACTIVATIONS = {
    "relu6": (nn.ReLU6, VEC),
    "hardtanh": (mod(nn.Hardtanh, -0.5, 0.7), VEC),
    "clamp": (fn(lambda m, x: x.clamp(-0.3, 0.4)), VEC),
    "clamp-min": (fn(lambda m, x: torch.clamp(x, min=-0.3)), VEC),
    "clamp-max": (fn(lambda m, x: x.clamp(max=0.3)), VEC),
    "clamp_min": (fn(lambda m, x: x.clamp_min(0.1)), VEC),
    "clamp_max": (fn(lambda m, x: x.clamp_max(0.1)), VEC),
    "clip": (fn(lambda m, x: torch.clip(x, 0, 1)), VEC),
    "maximum": (fn(lambda m, x: torch.maximum(x, torch.tensor(0.0))), VEC),
    "minimum": (fn(lambda m, x: torch.min(torch.tensor(0.25), x)), VEC),
    "prelu": (mod(nn.PReLU), VEC),
    "leaky-0": (mod(nn.LeakyReLU, 0.0), VEC),
    "threshold": (mod(nn.Threshold, 0.0, 0.0), VEC),
    "relu-in-place": (seq(fc(6, 5), mod(nn.ReLU, inplace=True), fc(5, 3)), VEC),
    "relu6-in-place": (seq(fc(6, 5), mod(nn.ReLU6, inplace=True)), VEC),
}


def overwrite(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    z = y.view(-1, 2, 3)
    F.relu_(z)
    return y + m.b(x)


def input_in_place(m: Any, x: Tensor) -> Tensor:
    x += 1
    return m.a(x) + x


ARITHMETIC = {
    "add-number": (fn(lambda m, x: x + 2), VEC),
    "radd-sub": (fn(lambda m, x: 1.5 - (3 - x) - 0.25), VEC),
    "mul-parameter": (fn(lambda m, x: x * m.v, v=lambda: V.clone()), VEC),
    "normalise": (
        lambda: Fn(lambda m, x: (x - m.mean) / m.std, buffers={"mean": torch.rand(1, 2, 1, 1), "std": torch.rand(2, 1, 1) + 1}),
        IMG,
    ),
    "div-number": (fn(lambda m, x: x / 255), VEC),
    "neg": (fn(lambda m, x: -x), VEC),
    "rsub-alpha": (fn(lambda m, x: torch.sub(torch.ones(6), x, alpha=3)), VEC),
    "residual-alpha": (fn(lambda m, x: torch.add(m.a(x), x, alpha=0.5), a=fc(6, 6)), VEC),
    "residual-sub": (fn(lambda m, x: m.a(x) - x, a=fc(6, 6)), VEC),
    "residual-iadd": (fn(lambda m, x: m.a(x).add_(x), a=fc(6, 6)), VEC),
    "add-itself": (fn(lambda m, x: x + x), VEC),
    "add-broadcast": (fn(lambda m, x: x + F.adaptive_avg_pool2d(x, 1)), IMG),
    "constants-folded": (fn(lambda m, x: F.linear(x, m.w.T * 2 + 1), w=lambda: W.clone()), VEC),
    "matmul": (fn(lambda m, x: x @ m.w + 1, w=lambda: W.clone()), VEC),
    "addmm": (fn(lambda m, x: torch.addmm(m.b, x, m.w, beta=2, alpha=3), w=lambda: W.clone(), b=lambda: V[:4].clone()), VEC),
    "weight-norm": (seq(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.ReLU), VEC),
    "no-grad": (fn(lambda m, x: torch.no_grad()(m.a)(x), a=fc(6, 5)), VEC),
    "overwritten": (fn(overwrite, a=fc(6, 6), b=fc(6, 6)), VEC),
    "input-overwritten": (fn(input_in_place, a=fc(6, 6)), VEC),
}

SHAPES = {
    "view-minus-one": (fn(lambda m, x: m.a(x.view(-1, 128)), a=fc(128, 3)), IMG),
    "view-size": (fn(lambda m, x: m.a(x.view(x.size(0), -1)), a=fc(128, 3)), IMG),
    "view-shape": (fn(lambda m, x: m.a(x.view(x.shape[0], x.shape[1] * 64)), a=fc(128, 3)), IMG),
    "reshape-len": (fn(lambda m, x: x.reshape(len(x), 16, 8)), IMG),
    "flatten-1": (fn(lambda m, x: torch.flatten(x, 1)), IMG),
    "flatten-middle": (fn(lambda m, x: x.flatten(2)), IMG),
    "unflatten": (seq(mod(nn.Unflatten, 1, (1, 2, 3)), conv(1, 2, 2)), VEC),
    "unsqueeze": (fn(lambda m, x: x.unsqueeze(-1)), VEC),
    "index-none": (fn(lambda m, x: x[:, None].squeeze(1)), VEC),
    "squeeze-two": (fn(lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze((2, 3))), IMG),
    "squeeze-last": (fn(lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)), IMG),
    "permute": (fn(lambda m, x: x.permute(0, 2, 3, 1)), ODD),
    "permute-negative": (fn(lambda m, x: x.permute(0, -1, 1, 2)), ODD),
    "transpose": (fn(lambda m, x: m.a(x.transpose(1, -1).reshape(len(x), -1)), a=fc(126, 3)), ODD),
    "movedim": (fn(lambda m, x: x.movedim(1, -1).contiguous()), ODD),
    "mT": (fn(lambda m, x: x.mT), ODD),
    "cat": (fn(lambda m, x: torch.cat([m.a(x), x], 1), a=fc(6, 4)), VEC),
    "cat-negative": (fn(lambda m, x: torch.cat([x, -x, x], -1)), IMG),
    "cat-channels": (fn(lambda m, x: torch.cat([m.a(x), x], 1), a=conv(2, 3, 3, padding=1)), IMG),
    "identity": (seq(nn.Identity, fc(6, 2), nn.Identity), VEC),
    "dropout2d": (seq(nn.Dropout2d, conv(2, 2, 3), nn.AlphaDropout), IMG),
    "functional": (
        fn(
            lambda m, x: F.linear(F.max_pool2d(F.relu(F.conv2d(x, m.w)), 2).flatten(1), m.v),
            w=lambda: torch.randn(2, 2, 3, 3),
            v=lambda: torch.randn(4, 18),
        ),
        IMG,
    ),
    "functional-pools": (fn(lambda m, x: F.hardtanh(F.avg_pool2d(F.leaky_relu(x), 2)) + F.relu6(F.max_pool2d(x, 2))), IMG),
    "reused": (fn(lambda m, x: m.a(torch.relu(m.a(x))), a=fc(6, 6)), VEC),
    "unused-output": (fn(lambda m, x: (m.a(x).sigmoid(), m.b(x))[1], a=fc(6, 6), b=fc(6, 3)), VEC),
    "weightless-cast": (fn(lambda m, x: m.a(x.to(m.a.weight.dtype)), a=fc(6, 6)), VEC),
}

ALL = {**ORDINARY, **CONVS, **POOLS, **ACTIVATIONS, **ARITHMETIC, **SHAPES}


def read(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Network]:
    torch.manual_seed(0)
    module = make()
    return module, from_torch(module, torch.zeros(1, *shape))


def named(network: Network) -> dict[str, str]:
    return {node.name: node.layer.label for node in network.nodes}


@pytest.mark.parametrize("name", ALL)
def test_network_equals_torch(name: str) -> None:
    module, network = read(*ALL[name])
    for batch in (1, 3):
        x = torch.randn(batch, *ALL[name][1], dtype=torch.float64)
        with torch.no_grad():
            wanted = module.double().eval()(x.clone())
        assert network.forward(x).shape == tuple(wanted.shape)
        assert (torch.from_numpy(network.forward(x)) - wanted).abs().max() < 1e-10
    names = [node.name for node in network.nodes]
    assert len(set(names)) == len(names)
    assert all(name.replace(".", "").replace("_", "").isalnum() for name in names)


def test_there_are_many() -> None:
    assert len(ALL) >= 60


class TestNames:
    def test_unnamed_layers_are_counted(self) -> None:
        _, network = read(
            seq(conv(2, 3, 3), lambda: norm(nn.BatchNorm2d, 3), nn.ReLU, mod(nn.MaxPool2d, 2), nn.Flatten, fc(27, 4), nn.ReLU, fc(4, 2)),
            IMG,
        )
        assert list(named(network)) == ["conv1", "bn1", "relu1", "pool1", "flatten1", "fc1", "relu2", "fc2"]
        assert network.modules["fc2"] == "7"

    def test_paths_are_kept(self) -> None:
        _, network = read(fn(lambda m, x: m.head(m.features(x)), features=seq(fc(6, 4), nn.ReLU), head=fc(4, 2)), VEC)
        assert list(named(network)) == ["features.0", "features.1", "head"]
        assert network.modules == {"features.0": "features.0", "features.1": "features.1", "head": "head"}

    def test_nested_numbers_are_counted(self) -> None:
        _, network = read(seq(seq(fc(6, 4), nn.ReLU), fc(4, 2)), VEC)
        assert list(named(network)) == ["fc1", "relu1", "fc2"]
        assert network.modules == {"fc1": "0.0", "relu1": "0.1", "fc2": "1"}

    def test_functions_do_not_take_a_modules_name(self) -> None:
        _, network = read(fn(lambda m, x: m.relu1(m.fc1(torch.relu(x))), fc1=fc(6, 4), relu1=nn.ReLU), VEC)
        assert list(named(network)) == ["relu2", "fc1", "relu1"]

    @pytest.mark.parametrize(("given", "name"), [("input", "input_2"), ("sample", "sample_2"), ("a/b c", "a_b_c")])
    def test_names_are_safe(self, given: str, name: str) -> None:
        module = nn.Sequential()
        module.add_module(given, nn.Linear(6, 2))
        network = from_torch(module, torch.zeros(1, 6))
        assert list(named(network)) == [name]
        assert network.modules == {name: given}

    def test_a_module_used_twice_has_one_origin(self) -> None:
        _, network = read(fn(lambda m, x: m.fc(m.act(m.fc(m.act(x)))), fc=fc(6, 6), act=nn.ReLU), VEC)
        assert [(n.name, n.origin) for n in network.nodes if n.layer.prunable] == [("fc", "fc"), ("fc_2", "fc")]
        assert network.parameters == 42

    def test_an_unnamed_module_used_twice_has_one_origin(self) -> None:
        layer = nn.Linear(6, 6)
        network = from_torch(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 6))
        assert [(n.name, n.origin) for n in network.nodes] == [("fc1", "fc1"), ("relu1", "relu1"), ("fc1_2", "fc1")]
        assert network.modules["fc1"] == "0"

    def test_a_parameter_used_twice_has_one_origin(self) -> None:
        _, network = read(fn(lambda m, x: F.linear(F.relu(F.linear(x, m.w)), m.w), w=lambda: torch.randn(6, 6)), VEC)
        assert [n.origin for n in network.nodes if n.layer.prunable] == ["fc1", "fc1"]

    def test_a_weight_and_its_transpose_have_two_origins(self) -> None:
        _, network = read(fn(lambda m, x: F.linear(F.linear(x, m.w), m.w.T), w=lambda: torch.randn(6, 6)), VEC)
        assert [n.origin for n in network.nodes] == ["fc1", "fc2"]

    def test_two_parameters_of_one_module_have_two_origins(self) -> None:
        _, network = read(fn(lambda m, x: F.linear(F.linear(x, m.v), m.w), v=lambda: torch.randn(6, 6), w=lambda: torch.randn(6, 6)), VEC)
        assert [n.origin for n in network.nodes] == ["fc1", "fc2"]
        assert network.parameters == 72


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda m, x: x.clamp(min=0), ReLU),
        (lambda m, x: x.clamp(0, 6), Clip),
        (lambda m, x: F.leaky_relu(x, 0.5), LeakyReLU),
        (lambda m, x: x + 1, Scale),
        (lambda m, x: x + x, Add),
        (lambda m, x: torch.cat([x, x], 1), Concat),
        (lambda m, x: x.view(-1, 2, 3), Reshape),
        (lambda m, x: F.max_pool2d(x.view(-1, 1, 2, 3), 2), MaxPool2d),
        (lambda m, x: x.view(-1, 2, 3).transpose(1, 2), Permute),
        (lambda m, x: F.linear(x, torch.ones(2, 6).to(x)), Dense),
        (lambda m, x: F.conv2d(x.view(-1, 1, 2, 3), torch.ones(1, 1, 2, 2).to(x)), Conv2d),
    ],
)
def test_layer_of_an_operator(forward: Callable[[Any, Tensor], Tensor], kind: type[Layer]) -> None:
    _, network = read(fn(forward), VEC)
    assert type(network.output.layer) is kind


class TestNotes:
    @pytest.mark.parametrize("last", [mod(nn.Softmax, 1), mod(nn.LogSoftmax, -1), fn(lambda m, x: x.log_softmax(1).contiguous())])
    def test_a_final_softmax_is_taken_off(self, last: Callable[[], nn.Module]) -> None:
        module, network = read(seq(fc(6, 3), last), VEC)
        assert named(network) == {"fc1": "Dense"}
        assert "softmax was taken off" in network.notes[0]
        x = torch.randn(4, 6, dtype=torch.float64)
        assert torch.allclose(torch.from_numpy(network.forward(x)), F.linear(x, *(p.double() for p in module[0].parameters())))  # type: ignore[index, arg-type]
        assert torch.allclose(torch.from_numpy(network.outputs(x)), module.double()(x), atol=1e-14)
        assert network.without_softmax().softmax is None

    def test_no_notes_otherwise(self) -> None:
        assert read(*ORDINARY["mlp"])[1].notes == ()

    def test_tiny_and_far_apart_weights(self) -> None:
        module = nn.Linear(6, 1)
        with torch.no_grad():
            module.weight.copy_(torch.tensor([[1e-10, 1, 2, 0, -1e-12, 3]]))
        notes = from_torch(module, torch.zeros(1, 6)).notes
        assert "2 nonzero numbers in `weight` of `fc1` are below 1e-09" in notes[0]
        assert "`weight` of `fc1` ranges from 1.0e-12 to 3.0e+00" in notes[1]


def test_the_module_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    example = torch.ones(2, *IMG)
    from_torch(module, example)
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(example, torch.ones(2, *IMG))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_type(dtype: torch.dtype) -> None:
    module = nn.Linear(6, 2).to(dtype)
    network = from_torch(module, torch.zeros(1, 6, dtype=dtype))
    assert torch.equal(network["fc1"].layer.weights()["weight"], module.weight.detach().double())


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "sigmoid": (
        seq(fc(6, 2), nn.Sigmoid, fc(2, 2)),
        VEC,
        r"`aten.sigmoid.default` \(node `sigmoid`, module `1`\).*replace it by `nn.Hardsigmoid` or ReLU, or drop it",
    ),
    "tanh": (fn(lambda m, x: torch.tanh(x)), VEC, "aten.tanh.default.*`nn.Hardtanh`"),
    "softmax-inside": (seq(mod(nn.Softmax, 1), fc(6, 2)), VEC, "aten.softmax.int.*as the last operation"),
    "softmax-of-samples": (seq(mod(nn.Softmax, 0)), VEC, "aten.softmax.int"),
    "product": (fn(lambda m, x: x * x), VEC, "aten.mul.Tensor.*not linear"),
    "quotient": (fn(lambda m, x: 1 / x), VEC, "aten.reciprocal.default"),
    "quotient-of-two": (fn(lambda m, x: m.a(x) / x, a=fc(6, 6)), VEC, "aten.div.Tensor.*divisor depends on the network's input"),
    "division-by-zero": (fn(lambda m, x: (x / torch.zeros(6)).clamp(0, 1)), VEC, "aten.div.Tensor.*divides by 0"),
    "matmul-of-two": (fn(lambda m, x: x.view(-1, 2, 3) @ x.view(-1, 3, 2)), VEC, "aten.matmul.default.*multiplies two values"),
    "no-running-statistics": (mod(nn.BatchNorm2d, 2, track_running_stats=False), IMG, "aten.batch_norm.default.*running statistics"),
    "instance-norm": (mod(nn.InstanceNorm2d, 2), IMG, "aten.instance_norm.default.*replace it by a batch norm"),
    "threshold": (mod(nn.Threshold, 0.5, 0.0), VEC, "aten.threshold.default.*jumps at 0.5, to 0.0"),
    "empty-range": (fn(lambda m, x: x.clamp(1, 0)), VEC, "aten.clamp.default.*expected low <= high"),
    "mean-of-samples": (fn(lambda m, x: x - x.mean(0, keepdim=True)), VEC, "aten.mean.dim.*sample axis"),
    "cat-samples": (fn(lambda m, x: torch.cat([x, x])), VEC, "expected the sample axis first"),
    "cat-samples-inside": (fn(lambda m, x: torch.cat([x, x])[:3]), VEC, "aten.cat.default.*sample axis"),
    "mix-samples": (fn(lambda m, x: x.view(-1, 3).view(-1, 6)), VEC, "aten.view.default.*mixes samples"),
    "transpose-samples": (fn(lambda m, x: F.relu(x.t()).t()), VEC, "aten.t.default"),
    "permute-samples": (fn(lambda m, x: x.permute(1, 0).permute(1, 0)), VEC, "aten.permute.default.*moves the sample axis"),
    "squeeze-all": (fn(lambda m, x: x.squeeze()), VEC, r"aten.squeeze.default.*squeeze\(dim\)"),
    "constant-per-sample": (
        fn(lambda m, x: x + torch.arange(float(len(x)))[:, None]),
        VEC,
        "aten.add.Tensor.*differs from sample to sample",
    ),
    "ranks": (fn(lambda m, x: x + x[:, :, 0, 0].sum()), IMG, "aten.sum.default.*sample axis"),
    "branch": (fn(lambda m, x: x if x.sum() > 0 else -x), VEC, "torch.export cannot trace `Fn`.*rewrite its forward without branches"),
    "item": (fn(lambda m, x: x * x[0, 0].item()), VEC, r"aten.select.int|factor depends on the network's input|cannot trace"),
    "two-outputs": (fn(lambda m, x: (x, x)), VEC, "returns a tuple; expected one tensor"),
    "dictionary": (fn(lambda m, x: {"y": x}), VEC, "returns a dict; expected one tensor"),
    "constant-output": (fn(lambda m, x: torch.zeros(len(x), 2)), VEC, "output does not depend on its input"),
    "complex": (lambda: nn.Linear(6, 2, dtype=torch.complex64), VEC, "parameter `weight` is of type torch.complex64"),
    "comparison": (fn(lambda m, x: (x > 0).double()), VEC, "aten.gt.Scalar.*jumps"),
    "integers": (fn(lambda m, x: (x.to(torch.int64) + 1).double()), VEC, "turns torch.float64 into torch.int64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, shape, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        read(make, shape)
    assert "\n" not in str(caught.value)


def test_a_failure_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match="cannot trace"):
        read(fn(lambda m, x: x if x.sum() > 0 else -x), VEC)
    assert capfd.readouterr() == ("", "")


class TestInput:
    @pytest.mark.parametrize(
        ("example", "error", "message"),
        [
            (torch.zeros(6), NetworkError, r"shape \(6,\); expected \(samples"),
            (torch.zeros(0, 6), NetworkError, r"shape \(0, 6\)"),
            (torch.zeros(1, 6, dtype=torch.int64), UnsupportedError, "torch.int64"),
            (torch.zeros(1, 6, dtype=torch.complex64), UnsupportedError, "torch.complex64"),
            ((torch.zeros(1, 6), torch.zeros(1, 6)), UnsupportedError, "is a tuple; expected one array or tensor"),
            (torch.zeros(1, 5), NetworkError, r"fails in float64 on 3 samples of shape \(5,\).*mat1"),
        ],
    )
    def test_wrong_example(self, example: Any, error: type[InputError], message: str) -> None:
        with pytest.raises(error, match=message):
            from_torch(nn.Linear(6, 2), example)

    def test_arrays_do(self) -> None:
        assert from_torch(nn.Linear(6, 2), torch.zeros(1, 6).numpy()).output_shape == (2,)

    def test_an_image_without_sample_axis(self) -> None:
        with pytest.raises(NetworkError, match=r"needs the shape \(samples, \*shape of one sample\)"):
            from_torch(nn.Conv2d(1, 2, 3), torch.zeros(1, 8, 8))

    def test_two_inputs(self) -> None:
        with pytest.raises(NetworkError, match="a forward of one input"):
            from_torch(nn.Bilinear(6, 6, 2), torch.zeros(1, 6))

    def test_no_module(self) -> None:
        with pytest.raises(InputError, match=r"given a function as `module`; expected a torch\.nn\.Module"):
            from_torch(lambda x: x, torch.zeros(1, 6))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(value: float) -> None:
    module = nn.Sequential(nn.Linear(6, 2), nn.ReLU())
    with torch.no_grad():
        module[0].weight[1, 2] = value  # type: ignore[index]
    with pytest.raises(NetworkError, match=r"parameter `0\.weight` holds 1 NaN or infinite among 12"):
        from_torch(module, torch.zeros(1, 6))


def test_a_statistic_that_is_no_number() -> None:
    module = nn.BatchNorm1d(6)
    module.running_var[0] = math.nan  # type: ignore[index]
    with pytest.raises(NetworkError, match="`running_var` holds 1 NaN"):
        from_torch(module, torch.zeros(1, 6))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x + len(x),
        lambda m, x: x.view(3, 6) * 1,
        lambda m, x: x + torch.rand(6),
    ],
)
def test_a_network_that_is_not_the_module_is_never_returned(forward: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=r"is not the module|fails in float64|cannot be read"):
        from_torch(Fn(forward), torch.zeros(1, 6))


def test_a_rule_of_ones_own() -> None:
    @reads("aten.abs.default")
    def _(call: TorchCall, x: Value) -> Value:
        return call.emit(
            Add((1.0, 1.0)), call.emit(ReLU(), x), call.emit(ReLU(), call.emit(Scale(torch.tensor(-1.0), torch.tensor(0.0)), x))
        )

    try:
        network = from_torch(Fn(lambda m, x: x.abs()), torch.zeros(1, 6))
    finally:
        del TORCH_RULES["aten.abs.default"]
    assert list(named(network).values()) == ["ReLU", "Scale", "ReLU", "Add"]


@pytest.mark.parametrize("cast", [lambda x: x.float(), lambda x: x.to(torch.float32), lambda x: x.to(dtype=torch.float32).double()])
def test_casts_that_keep_values_are_read(cast: Callable[[Tensor], Tensor]) -> None:
    module = Fn(lambda m, x: m.fc(cast(x) / 2), fc=nn.Linear(6, 2))
    network, x = from_torch(module, torch.zeros(1, 6)), torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.from_numpy(network.forward(x)), F.linear(x / 2, module.fc.weight.double(), module.fc.bias.double()))


def test_a_cast_that_rounds_is_not_read() -> None:
    """In a module of float64 numbers a cast to float32 rounds."""
    module = Fn(lambda m, x: m.fc(x.float().double()), fc=nn.Linear(6, 2).double())
    with pytest.raises(UnsupportedError, match=r"turns torch\.float64 into torch\.float32"):
        from_torch(module, torch.zeros(1, 6))
