"""Every layer by itself: its matrix, its interval rule, its shape, and its error for a wrong shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mipnet.layers
from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval
from mipnet.errors import InputError, NetworkError
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers import (
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    AxisDense,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    Dense,
    Gather,
    LeakyReLU,
    Maximum,
    MaxPool2d,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Select,
    SparseMap,
    Window,
)
from mipnet.network.graph import Layer, size
from tests.trees import random_ensemble

IMG, ODD = (2, 6, 6), (3, 5, 7)


def rand(*shape: int) -> Tensor:
    """Numbers of both signs, some of them 0, the same for the same shape."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
    return torch.where(values.abs() < 0.15, 0.0, values)


def conv(outputs: int, inputs: int, *kernel: int, groups: int = 1, **given: Any) -> Conv2d:
    return Conv2d(rand(outputs, inputs // groups, *kernel), rand(outputs), groups=groups, **given)


CASES: dict[str, tuple[Layer, tuple[Shape, ...]]] = {
    "dense": (Dense(rand(4, 6), rand(4)), ((6,),)),
    "dense-one": (Dense(rand(1, 1), rand(1)), ((1,),)),
    "conv": (conv(3, 2, 3, 3), (IMG,)),
    "conv-stride": (conv(3, 2, 3, 2, stride=(2, 3)), (IMG,)),
    "conv-padding": (conv(3, 2, 3, 3, padding=(1, 1, 2, 2)), (IMG,)),
    "conv-one-sided": (conv(3, 3, 2, 4, padding=(0, 1, 1, 2)), (ODD,)),
    "conv-dilation": (conv(3, 3, 2, 3, dilation=(3, 2), padding=(1, 0, 0, 1)), (ODD,)),
    "conv-groups": (conv(4, 2, 3, 3, groups=2), (IMG,)),
    "conv-depthwise": (conv(6, 3, 3, 3, groups=3, stride=(2, 2)), (ODD,)),
    "conv-whole": (conv(2, 3, 5, 7), (ODD,)),
    "batchnorm": (BatchNorm(rand(3), rand(3)), (ODD,)),
    "batchnorm-vector": (BatchNorm(rand(6), rand(6)), ((6,),)),
    "batchnorm-sequence": (BatchNorm(rand(3), rand(3)), ((3, 4),)),
    "scale-numbers": (Scale(torch.tensor(-2.5), torch.tensor(1.0)), (IMG,)),
    "scale-channels": (Scale(rand(3, 1, 1), rand(1, 5, 7)), (ODD,)),
    "scale-elements": (Scale(rand(6), rand(6)), ((6,),)),
    "scale-copies": (Scale(torch.ones(2, 3), rand(2, 1)), ((1, 3),)),
    "scale-more-axes": (Scale(rand(4, 1), torch.tensor(0.5)), ((3,),)),
    "relu": (ReLU(), (IMG,)),
    "leaky": (LeakyReLU(0.2), (IMG,)),
    "leaky-0": (LeakyReLU(0.0), ((6,),)),
    "leaky-steep": (LeakyReLU(1.5), ((6,),)),
    "clip": (Clip(-0.5, 0.7), (IMG,)),
    "clip-below": (Clip(low=-0.2), ((6,),)),
    "clip-above": (Clip(high=0.2), ((6,),)),
    "clip-point": (Clip(0.3, 0.3), ((6,),)),
    "trees": (random_ensemble(1, trees=3, outputs=2), ((2,),)),
    "max": (MaxPool2d(Window((2, 2), (2, 2))), (IMG,)),
    "max-overlap": (MaxPool2d(Window((3, 2), (1, 2))), (ODD,)),
    "max-padded": (MaxPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1))), (ODD,)),
    "max-dilated": (MaxPool2d(Window((2, 2), (1, 1), dilation=(2, 3))), (ODD,)),
    "prelu": (PReLU(torch.tensor([0.25, -0.5, 1.5]).reshape(3, 1, 1)), (ODD,)),
    "prelu-one": (PReLU(torch.tensor(0.2)), ((6,),)),
    "absolute": (PReLU(torch.tensor(-1.0)), (IMG,)),
    "maximum": (Maximum(torch.tensor([[[0, 3], [5, -1]], [[2, 2], [4, 1]]])), ((6,),)),
    "maximum-axis": (Maximum(torch.arange(24).reshape(2, 3, 4).movedim(1, -1)), ((2, 3, 4),)),
    "axis-last": (AxisDense(rand(4, 7), rand(4)), (ODD,)),
    "axis-first": (AxisDense(rand(2, 3), rand(2), 0), (ODD,)),
    "axis-middle": (AxisDense(rand(6, 5), None, 1, trained=False), (ODD,)),
    "axis-vector": (AxisDense(rand(4, 6), rand(4)), ((6,),)),
    "gather": (Gather(torch.tensor([[0, 5, -1], [5, 5, 2]]), rand(3)), ((2, 3),)),
    "gather-constants": (Gather(torch.tensor([-1, -1]), 1.5), ((6,),)),
    "gather-no-constant": (Gather(torch.arange(71, -1, -1).reshape(2, 36)), (IMG,)),
    "sparse": (SparseMap.of(Csr(rand(6, 72).numpy()), rand(2, 3)), (IMG,)),
    "sparse-empty": (SparseMap.of(Csr((2, 6)), rand(2)), ((6,),)),
    "transposed": (ConvTranspose2d(rand(2, 3, 3, 2), rand(3), (2, 1)), (IMG,)),
    "transposed-cut": (ConvTranspose2d(rand(3, 2, 3, 3), None, (2, 2), (1, 0, 1, 1)), (ODD,)),
    "transposed-longer": (ConvTranspose2d(rand(3, 2, 2, 2), rand(2), (3, 2), (0, -1, 0, -1), (2, 1)), (ODD,)),
    "transposed-groups": (ConvTranspose2d(rand(4, 3, 2, 2), rand(6), groups=2), ((4, 3, 2),)),
    "volume": (Conv3d(rand(3, 2, 2, 3, 2), rand(3)), ((2, 4, 4, 3),)),
    "volume-stride": (Conv3d(rand(2, 1, 2, 2, 2), None, (2, 1, 2), ((1, 0), (0, 1), (1, 1)), (1, 2, 1), 2), ((2, 4, 4, 3),)),
    "max-ceil": (MaxPool2d(Window((2, 2), (2, 2), ceil=True)), (ODD,)),
    "max-ceil-padded": (MaxPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1), ceil=True)), (IMG,)),
    "avg": (AvgPool2d(Window((2, 2), (2, 2))), (IMG,)),
    "avg-counted": (AvgPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1))), (ODD,)),
    "avg-uncounted": (AvgPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1)), count_padding=False), (ODD,)),
    "avg-ceil": (AvgPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1), ceil=True)), (IMG,)),
    "avg-ceil-uncounted": (AvgPool2d(Window((3, 3), (2, 2), (1, 1, 1, 1), ceil=True), count_padding=False), (IMG,)),
    "avg-divisor": (AvgPool2d(Window((2, 3), (2, 3)), divisor=5.0), (IMG,)),
    "adaptive": (AdaptiveAvgPool2d((1, 1)), (ODD,)),
    "adaptive-uneven": (AdaptiveAvgPool2d((3, 4)), (ODD,)),
    "adaptive-larger": (AdaptiveAvgPool2d((7, 9)), (ODD,)),
    "reshape": (Reshape((4, 18)), (IMG,)),
    "flatten": (Reshape((72,)), (IMG,)),
    "permute": (Permute((2, 0, 1)), (ODD,)),
    "permute-pair": (Permute((1, 0)), ((3, 4),)),
    "select": (Select((3, 0, 3)), ((6,),)),
    "add": (Add(), (IMG, IMG)),
    "subtract": (Add((1.0, -1.0)), ((6,), (6,))),
    "add-three": (Add((0.5, -2.0, 0.0)), ((6,), (6,), (6,))),
    "concat": (Concat(0), ((2, 3), (4, 3))),
    "concat-last": (Concat(-1), ((2, 3), (2, 1), (2, 2))),
    "concat-middle": (Concat(1), ((2, 3, 4), (2, 1, 4))),
}
AFFINE = [name for name, (layer, _) in CASES.items() if is_affine(layer)]
MONOTONE = [name for name, (layer, _) in CASES.items() if not is_affine(layer) and not isinstance(layer, PReLU)]


def points(shapes: tuple[Shape, ...], count: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def boxes(shapes: tuple[Shape, ...]) -> list[Interval]:
    """Boxes with width 0 along a third of the axes."""
    found = []
    for seed, centre in enumerate(points(shapes)):
        radius = points((tuple(centre.shape[1:]),), seed=seed + 9)[0]
        radius = torch.where(radius < -0.4, 0.0, radius.abs())
        found.append(Interval(centre - radius, centre + radius))
    return found


def check_matrix(layer: Layer, shapes: tuple[Shape, ...]) -> None:
    """The sum of the matrices times the flat inputs, plus the layer's value at 0, is the layer's value."""
    inputs = points(shapes)
    zero = layer.forward(*(torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes)).reshape(1, -1).numpy()
    value = zero + sum(x.reshape(len(x), -1).numpy() @ m.T for x, m in zip(inputs, linear_map(layer, *shapes), strict=True))
    np.testing.assert_allclose(value, layer.forward(*inputs).reshape(len(inputs[0]), -1).numpy(), atol=1e-12)


def test_every_layer_is_here() -> None:
    known = {getattr(mipnet.layers, name) for name in mipnet.layers.__all__}
    assert {kind for kind in known if issubclass(kind, Layer)} == {type(layer) for layer, _ in CASES.values()}


@pytest.mark.parametrize("name", AFFINE)
class TestAffine:
    def test_matrix_is_the_layer(self, name: str) -> None:
        check_matrix(*CASES[name])

    def test_matrix_has_the_shapes_of_the_layer(self, name: str) -> None:
        layer, shapes = CASES[name]
        for matrix, shape in zip(linear_map(layer, *shapes), shapes, strict=True):
            assert matrix.shape == (size(layer.shape(*shapes)), size(shape))

    def test_interval_is_attained(self, name: str) -> None:
        """Each end is the value at the corner that the signs of its row choose."""
        layer, shapes = CASES[name]
        given = boxes(shapes)
        found = interval(layer, *given)
        end = layer.forward(*(torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes)).reshape(1, -1).numpy()
        for matrix, box in zip(linear_map(layer, *shapes), given, strict=True):
            dense = matrix.toarray()
            low, high = (side.reshape(len(side), -1).numpy() for side in (box.lower, box.upper))
            end = end + high @ np.maximum(dense, 0).T + low @ np.minimum(dense, 0).T
        np.testing.assert_allclose(found.upper.reshape(end.shape).numpy(), end, atol=1e-12)


@pytest.mark.parametrize("name", MONOTONE)
def test_interval_of_a_monotone_layer_is_attained(name: str) -> None:
    layer, shapes = CASES[name]
    given = boxes(shapes)
    found = interval(layer, *given)
    for end, side, sign in ((found.lower, "lower", 1), (found.upper, "upper", -1)):
        exact = layer.forward(*(getattr(box, side) for box in given))
        assert bool((sign * end <= sign * exact).all())  # rounded outwards, if at all
        torch.testing.assert_close(end, exact, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
class TestEvery:
    def test_shape_is_the_shape_of_forward(self, name: str) -> None:
        layer, shapes = CASES[name]
        for count in (1, 3):
            assert tuple(layer.forward(*points(shapes, count)).shape) == (count, *layer.shape(*shapes))

    def test_forward_keeps_the_number_type(self, name: str) -> None:
        layer, shapes = CASES[name]
        assert layer.forward(*(x.float() for x in points(shapes))).dtype == torch.float32

    def test_interval_holds_sampled_points(self, name: str) -> None:
        layer, shapes = CASES[name]
        given = boxes(shapes)
        found = interval(layer, *given)
        generator = torch.Generator().manual_seed(1)
        for _ in range(30):
            at = [torch.rand(box.lower.shape, generator=generator, dtype=torch.float64).round(decimals=1) for box in given]
            value = layer.forward(*(box.lower + t * (box.upper - box.lower) for t, box in zip(at, given, strict=True)))
            assert (value >= found.lower - 1e-12).all()
            assert (value <= found.upper + 1e-12).all()

    def test_interval_of_a_point_is_the_value(self, name: str) -> None:
        layer, shapes = CASES[name]
        x = points(shapes)
        found, value = interval(layer, *(Interval(part, part) for part in x)), layer.forward(*x)
        assert (found.lower - value).abs().max() <= 1e-12
        assert (found.upper - value).abs().max() <= 1e-12

    def test_samples_do_not_mix(self, name: str) -> None:
        layer, shapes = CASES[name]
        x = points(shapes)
        torch.testing.assert_close(layer.forward(*(part[1:2] for part in x)), layer.forward(*x)[1:2], rtol=0, atol=1e-13)

    def test_weights_are_float64_and_its_own(self, name: str) -> None:
        layer, _ = CASES[name]
        assert all(weight.dtype == torch.float64 and not weight.requires_grad for weight in layer.weights().values())
        assert layer.label == type(layer).__name__


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("dense", ((5,),), r"shape \(5,\); the weight expects \(6,\)"),
        ("dense", ((2, 6),), r"shape \(2, 6\); the weight expects \(6,\)"),
        ("conv", ((3, 6, 6),), r"shape \(3, 6, 6\); expected \(2, rows, cols\)"),
        ("conv", ((2, 6),), r"shape \(2, 6\); expected \(2, rows, cols\)"),
        ("conv", ((2, 2, 6),), r"window of \(3, 3\).*does not fit an input of shape \(2, 2, 6\)"),
        ("batchnorm", ((2, 5, 7),), r"shape \(2, 5, 7\); expected 3 channels"),
        ("scale-channels", ((2, 5, 7),), r"\(3, 1, 1\) and \(1, 5, 7\) do not broadcast against an input of shape \(2, 5, 7\)"),
        ("max", ((6, 6),), r"shape \(6, 6\); expected \(channels, rows, cols\)"),
        ("max", ((2, 1, 6),), r"does not fit an input of shape \(2, 1, 6\)"),
        ("avg", ((6, 6),), r"shape \(6, 6\); expected \(channels, rows, cols\)"),
        ("avg", ((2, 6, 1),), r"does not fit an input of shape \(2, 6, 1\)"),
        ("adaptive", ((6,),), r"shape \(6,\); expected \(channels, rows, cols\)"),
        ("reshape", ((71,),), r"71 elements of shape \(71,\) do not fill shape \(4, 18\)"),
        ("select", ((3,),), r"selects the elements \(3, 0, 3\) of a vector of length 3"),
        ("permute", ((3, 4),), r"order \(2, 0, 1\) does not permute the axes of shape \(3, 4\)"),
        ("add", (IMG, ODD), r"shapes \(\(2, 6, 6\), \(3, 5, 7\)\); expected the same shape"),
        ("add", (IMG,), "1 inputs and 2 coefficients"),
        ("concat", ((2, 3), (2, 4)), r"shapes \(\(2, 3\), \(2, 4\)\); expected equal lengths except along axis 0"),
        ("concat", ((2, 3), (3,)), "expected the same number of axes"),
        ("concat-middle", ((2,), (2,)), "axis 1 is not one of the 1 axes"),
        ("gather", ((5,),), r"places range from -1 to 5, and its input of shape \(5,\) has 5 elements"),
        ("maximum", ((5,),), r"places range from -1 to 5, and its input of shape \(5,\) has 5 elements"),
        ("axis-last", (IMG,), r"shape \(2, 6, 6\); the weight expects 7 numbers along axis -1"),
        ("axis-middle", ((3,),), r"its axis is 1 and its input has shape \(3,\)"),
        ("sparse", ((3,),), r"its largest column is \d+, and its input of shape \(3,\) has 3 elements"),
        ("transposed", (ODD,), r"shape \(3, 5, 7\); expected \(2, rows, cols\)"),
        ("transposed-cut", ((3, 0, 7),), "leaves nothing of an input"),
        ("volume", (IMG,), r"shape \(2, 6, 6\); expected \(2, depth, rows, cols\)"),
        ("volume", ((2, 1, 4, 4),), r"a kernel of \(2, 3, 2\).* does not fit an input of shape \(2, 1, 4, 4\)"),
        ("prelu", (IMG,), r"slopes of shape \(3, 1, 1\) do not broadcast to an input of shape \(2, 6, 6\)"),
    ],
)
def test_wrong_shapes(name: str, shapes: tuple[Shape, ...], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        CASES[name][0].shape(*shapes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(torch.ones(3), torch.ones(3)), r"the weight has shape \(3,\); expected \(outputs, inputs\)"),
        (lambda: Dense(torch.ones(3, 2), torch.ones(2)), r"the bias has shape \(2,\); expected \(3,\)"),
        (lambda: Dense(torch.full((1, 2), math.nan), torch.ones(1)), "the weight of a dense layer holds 2 NaN"),
        (lambda: Conv2d(torch.ones(3, 2, 3), torch.ones(3)), r"shape \(3, 2, 3\); expected \(outputs, inputs/groups, rows, cols\)"),
        (lambda: Conv2d(torch.ones(3, 2, 3, 3), torch.ones(2)), r"the bias has shape \(2,\)"),
        (lambda: Conv2d(torch.ones(3, 2, 3, 3), torch.ones(3), groups=2), "3 output channels do not divide into 2 groups"),
        (lambda: Conv2d(torch.ones(1, 1, 1, 1), torch.tensor([math.inf])), "the bias of a convolution holds 1 NaN or infinite"),
        (lambda: BatchNorm(torch.ones(3), torch.ones(2)), "vectors of one length"),
        (lambda: Scale(torch.tensor(math.nan), torch.tensor(0.0)), "a constant factor holds 1 NaN"),
        (lambda: LeakyReLU(-0.1), "the slope is -0.1; expected a number of at least 0"),
        (lambda: LeakyReLU(math.nan), "given nan as `slope`; expected a number"),
        (lambda: Maximum(torch.tensor([[-1, -1]])), "one of its windows is empty"),
        (lambda: Gather(torch.tensor([0, 1]), torch.zeros(3)), r"do not broadcast to the shape \(2,\) of its places"),
        (lambda: Clip(1.0, 0.0), r"clips to \[1.0, 0.0\]; expected low <= high"),
    ],
)
def test_wrong_data(make: Callable[[], Layer], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_pooling_window_in_the_padding_is_refused() -> None:
    with pytest.raises(NetworkError, match="lies in the padding entirely"):
        MaxPool2d(Window((1, 1), (1, 1), (1, 1, 1, 1))).shape((1, 3, 3))


SMALL = st.integers(1, 3)
PAIRS = st.tuples(SMALL, SMALL)
IMAGES = st.tuples(SMALL, st.integers(1, 7), st.integers(1, 7))


def fits(kernel: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int], image: Shape) -> bool:
    return all(image[i + 1] + 2 * padding[i] >= dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1))


def sides(padding: tuple[int, int]) -> tuple[int, int, int, int]:
    return padding[0], padding[0], padding[1], padding[1]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IMAGES, SMALL, PAIRS, PAIRS, st.tuples(st.integers(0, 2), st.integers(0, 2)), PAIRS, st.booleans())
def test_any_convolution(image: Shape, outputs: int, kernel: Any, stride: Any, padding: Any, dilation: Any, depthwise: bool) -> None:
    assume(fits(kernel, dilation, padding, image))
    groups = image[0] if depthwise else 1
    weight, bias = rand(outputs * groups, image[0] // groups, *kernel), rand(outputs * groups)
    layer = Conv2d(weight, bias, stride, sides(padding), dilation, groups)
    (x,) = points((image,))
    torch.testing.assert_close(layer.forward(x), F.conv2d(x, weight, bias, stride, padding, dilation, groups), rtol=0, atol=1e-12)
    assert layer.shape(image) == tuple(layer.forward(x).shape[1:])
    check_matrix(layer, (image,))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IMAGES, PAIRS, PAIRS, st.tuples(st.integers(0, 1), st.integers(0, 1)), PAIRS, st.booleans())
def test_any_max_pool(image: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> None:
    assume(fits(kernel, dilation, padding, image) and all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    layer = MaxPool2d(Window(kernel, stride, sides(padding), dilation, ceil))
    (x,) = points((image,))
    wanted = F.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    if torch.isinf(wanted).any():
        with pytest.raises(NetworkError, match="in the padding entirely"):
            layer.shape(image)
        return
    assert layer.shape(image) == tuple(wanted.shape[1:])
    torch.testing.assert_close(layer.forward(x), wanted, rtol=0, atol=0)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IMAGES, PAIRS, PAIRS, st.tuples(st.integers(0, 1), st.integers(0, 1)), st.booleans(), st.booleans(), st.none() | st.integers(1, 9))
def test_any_average_pool(image: Shape, kernel: Any, stride: Any, padding: Any, ceil: bool, count: bool, divisor: int | None) -> None:
    assume(fits(kernel, (1, 1), padding, image) and all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    layer = AvgPool2d(Window(kernel, stride, sides(padding), (1, 1), ceil), count, divisor)
    (x,) = points((image,))
    wanted = F.avg_pool2d(x, kernel, stride, padding, ceil, count, divisor)
    assert layer.shape(image) == tuple(wanted.shape[1:])
    torch.testing.assert_close(layer.forward(x), wanted, rtol=0, atol=1e-12)
    check_matrix(layer, (image,))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IMAGES, st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_any_adaptive_pool(image: Shape, out: Any) -> None:
    layer = AdaptiveAvgPool2d(out)
    check_matrix(layer, (image,))
    assert layer.shape(image) == (image[0], *out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(range(4)), st.tuples(SMALL, SMALL, SMALL, SMALL))
def test_any_permutation(order: list[int], shape: Shape) -> None:
    layer = Permute(tuple(order))
    (x,) = points((shape,))
    assert layer.shape(shape) == tuple(layer.forward(x).shape[1:])
    check_matrix(layer, (shape,))
