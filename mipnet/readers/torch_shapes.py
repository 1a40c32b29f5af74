"""Conversion rules of torch's pooling, reshaping and joining operators; see `mipnet.readers.torch_call`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipnet.layers import AdaptiveAvgPool2d, AvgPool2d, Concat, MaxPool2d, Permute, Reshape, Window
from mipnet.layers.window import Pair, pair
from mipnet.readers.conversion import Value
from mipnet.readers.torch_call import IntOrPair, TorchCall, reads
from mipnet.readers.torch_graph import IDENTITY_OPERATORS

# Pooling


@reads("aten.max_pool2d.default")
def max_pool2d(
    call: TorchCall, x: Value, kernel: IntOrPair, stride: Any = (), padding: IntOrPair = 0, dilation: IntOrPair = 1, ceil: bool = False
) -> Value:
    """Convert max pooling."""
    return call.emit(MaxPool2d(_window(kernel, stride, padding, dilation, ceil)), x)


@reads("aten.avg_pool2d.default")
def avg_pool2d(
    call: TorchCall,
    x: Value,
    kernel: IntOrPair,
    stride: Any = (),
    padding: IntOrPair = 0,
    ceil: bool = False,
    count: bool = True,
    divisor: Any = None,
) -> Value:
    """Convert average pooling."""
    return call.emit(AvgPool2d(_window(kernel, stride, padding, 1, ceil), count, divisor), x)


def _window(kernel: IntOrPair, stride: Any, padding: IntOrPair, dilation: IntOrPair, ceil: bool) -> Window:
    rows, cols = pair(padding)
    step: Pair = pair(stride) if stride else pair(kernel)
    return Window(pair(kernel), step, (rows, rows, cols, cols), pair(dilation), bool(ceil))


@reads("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(call: TorchCall, x: Value, out: list[int]) -> Value:
    """Convert adaptive average pooling."""
    return call.emit(AdaptiveAvgPool2d(pair(out)), x)


@reads("aten.mean.dim")
def mean(call: TorchCall, x: Value, axes: Any, keep: bool = False, dtype: Any = None) -> Value:
    """Convert the mean over rows and columns: an adaptive pool of size 1."""
    if len(x.shape) != 3 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        call.refuse(f"it takes the mean over axes {axes}; expected rows and columns of (samples, channels, rows, columns)")
    return _reshape(call, call.emit(AdaptiveAvgPool2d((1, 1)), x))


# Shapes and several inputs


@reads("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints", alias=True)
@reads("aten.unflatten.int", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.view_copy.default", alias=True)
def reshape(call: TorchCall, x: Value, *rest: Any) -> Value:
    """Convert a reshape to the shape that torch recorded."""
    return _reshape(call, x)


@reads("aten.squeeze.default", alias=True)
def squeeze(call: TorchCall, x: Value) -> Value:
    """Refuse the operator: at batch size 1 it removes the sample axis too."""
    return call.refuse("without an axis it removes the sample axis of a single sample too; write `squeeze(dim)` or `flatten(1)`")


def _reshape(call: TorchCall, x: Value) -> Value:
    found = call.node.meta["val"].shape
    before = call.node.args[0].meta["val"].shape  # type: ignore[union-attr]
    if not found or str(found[0]) != str(before[0]):
        call.refuse(f"it mixes samples: {tuple(before)} becomes {tuple(found)}, and the first axis numbers the samples")
    return x if x.shape == call.shape else call.emit(Reshape(call.shape), x)


@reads("aten.permute.default", alias=True)
def permute(call: TorchCall, x: Value, order: Sequence[int]) -> Value:
    """Convert a permutation of the axes that leaves the sample axis first."""
    axes = [axis % (len(x.shape) + 1) for axis in order]
    if axes[0] != 0:
        call.refuse("it moves the sample axis")
    return x if axes == sorted(axes) else call.emit(Permute(tuple(axis - 1 for axis in axes[1:])), x)


@reads("aten.transpose.int", "aten.transpose_.int", alias=True)
def transpose(call: TorchCall, x: Value, first: int, second: int) -> Value:
    """Convert the swap of two axes."""
    order = list(range(len(x.shape) + 1))
    order[first], order[second] = order[second], order[first]
    return permute(call, x, order)


@reads("aten.mT.default", alias=True)
def matrix_transpose(call: TorchCall, x: Value) -> Value:
    """Convert the swap of the last two axes."""
    return transpose(call, x, -2, -1)


@reads("aten.movedim.int", alias=True)
def movedim(call: TorchCall, x: Value, source: int, target: int) -> Value:
    """Convert the move of one axis."""
    count = len(x.shape) + 1
    order = [axis for axis in range(count) if axis != source % count]
    order.insert(target % count, source % count)
    return permute(call, x, order)


@reads("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def concatenate(call: TorchCall, parts: Sequence[Any], axis: int = 0) -> Value:
    """Convert a concatenation along an axis of one sample."""
    values = [call.value(part, "one of its parts") for part in parts]
    place = axis % (len(values[0].shape) + 1)
    if place == 0:
        call.refuse("it concatenates along the sample axis")
    return call.emit(Concat(place - 1), *values)


# Operators without effect


@reads("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default", alias=True)
@reads("aten.alpha_dropout.default", "aten.feature_alpha_dropout.default", alias=True)
def dropout(call: TorchCall, x: Value, share: float, train: bool) -> Value:
    """Return the input: dropout acts in training mode only."""
    return x if not train or share == 0 else call.refuse("it drops at random; export the module in eval mode (`module.eval()`)")


@reads(*IDENTITY_OPERATORS, alias=True)
def identity(call: TorchCall, x: Value, *rest: Any) -> Value:
    """Return the input; refuses a change of its number type."""
    source = call.node.args[0]
    before, after = source.meta["val"].dtype, call.node.meta["val"].dtype  # type: ignore[union-attr]
    if before != after:
        call.refuse(f"it turns {before} into {after}; mipnet reads networks in one number type, so take the cast out")
    return _reshape(call, x)
