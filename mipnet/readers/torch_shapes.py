"""What torch's pooling, reshaping and joining operators mean in mipnet's layers; see `mipnet.readers.torch_graph`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipnet.layers import AdaptiveAvgPool2d, AvgPool2d, Concat, MaxPool2d, Permute, Reshape, Window
from mipnet.layers.window import Pair, pair
from mipnet.readers.lowering import Value
from mipnet.readers.torch_graph import PASSED, Call, reads

Numbers = int | list[int]


# Pooling


@reads("aten.max_pool2d.default")
def max_pool2d(
    call: Call, x: Value, kernel: Numbers, stride: Any = (), padding: Numbers = 0, dilation: Numbers = 1, ceil: bool = False
) -> Value:
    """Maxima over windows."""
    return call.emit(MaxPool2d(_window(kernel, stride, padding, dilation, ceil)), x)


@reads("aten.avg_pool2d.default")
def avg_pool2d(
    call: Call,
    x: Value,
    kernel: Numbers,
    stride: Any = (),
    padding: Numbers = 0,
    ceil: bool = False,
    count: bool = True,
    divisor: Any = None,
) -> Value:
    """Averages over windows."""
    return call.emit(AvgPool2d(_window(kernel, stride, padding, 1, ceil), count, divisor), x)


def _window(kernel: Numbers, stride: Any, padding: Numbers, dilation: Numbers, ceil: bool) -> Window:
    rows, cols = pair(padding)
    step: Pair = pair(stride) if stride else pair(kernel)
    return Window(pair(kernel), step, (rows, rows, cols, cols), pair(dilation), bool(ceil))


@reads("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(call: Call, x: Value, out: list[int]) -> Value:
    """Averages over windows that cover the input."""
    return call.emit(AdaptiveAvgPool2d(pair(out)), x)


@reads("aten.mean.dim")
def mean(call: Call, x: Value, axes: Any, keep: bool = False, dtype: Any = None) -> Value:
    """The mean over rows and columns: an adaptive pool of size 1."""
    if len(x.shape) != 3 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        call.refuse(f"it takes the mean over axes {axes}; expected rows and columns of (samples, channels, rows, columns)")
    return _reshape(call, call.emit(AdaptiveAvgPool2d((1, 1)), x))


# Shapes and several inputs


@reads("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints", alias=True)
@reads("aten.unflatten.int", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.view_copy.default", alias=True)
def reshape(call: Call, x: Value, *rest: Any) -> Value:
    """The same elements under another shape; torch has worked out which one."""
    return _reshape(call, x)


@reads("aten.squeeze.default", alias=True)
def squeeze(call: Call, x: Value) -> Value:
    """Refused: at batch size 1 it takes the sample axis away too."""
    return call.refuse("without an axis it takes away the sample axis of a single sample too; write `squeeze(dim)` or `flatten(1)`")


def _reshape(call: Call, x: Value) -> Value:
    found = call.node.meta["val"].shape
    before = call.node.args[0].meta["val"].shape  # type: ignore[union-attr]
    if not found or str(found[0]) != str(before[0]):
        call.refuse(f"it mixes samples: {tuple(before)} becomes {tuple(found)}, and the first axis numbers the samples")
    return x if x.shape == call.shape else call.emit(Reshape(call.shape), x)


@reads("aten.permute.default", alias=True)
def permute(call: Call, x: Value, order: Sequence[int]) -> Value:
    """Axes in another order, the sample axis in its place."""
    axes = [axis % (len(x.shape) + 1) for axis in order]
    if axes[0] != 0:
        call.refuse("it moves the sample axis")
    return x if axes == sorted(axes) else call.emit(Permute(tuple(axis - 1 for axis in axes[1:])), x)


@reads("aten.transpose.int", "aten.transpose_.int", alias=True)
def transpose(call: Call, x: Value, first: int, second: int) -> Value:
    """Two axes swapped."""
    order = list(range(len(x.shape) + 1))
    order[first], order[second] = order[second], order[first]
    return permute(call, x, order)


@reads("aten.mT.default", alias=True)
def matrix_transpose(call: Call, x: Value) -> Value:
    """The last two axes swapped."""
    return transpose(call, x, -2, -1)


@reads("aten.movedim.int", alias=True)
def movedim(call: Call, x: Value, source: int, target: int) -> Value:
    """One axis moved to another place."""
    count = len(x.shape) + 1
    order = [axis for axis in range(count) if axis != source % count]
    order.insert(target % count, source % count)
    return permute(call, x, order)


@reads("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def concatenate(call: Call, parts: Sequence[Any], axis: int = 0) -> Value:
    """Values side by side along an axis of one sample."""
    values = [call.value(part, "one of its parts") for part in parts]
    place = axis % (len(values[0].shape) + 1)
    if place == 0:
        call.refuse("it concatenates along the sample axis")
    return call.emit(Concat(place - 1), *values)


# Nothing to do


@reads("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default", alias=True)
@reads("aten.alpha_dropout.default", "aten.feature_alpha_dropout.default", alias=True)
def dropout(call: Call, x: Value, share: float, train: bool) -> Value:
    """The input: in eval mode nothing is dropped."""
    return x if not train or share == 0 else call.refuse("it drops at random; export the module in eval mode (`module.eval()`)")


@reads(*PASSED, alias=True)
def passed(call: Call, x: Value, *rest: Any) -> Value:
    """The input, unless its number type changes."""
    source = call.node.args[0]
    before, after = source.meta["val"].dtype, call.node.meta["val"].dtype  # type: ignore[union-attr]
    if before != after:
        call.refuse(f"it turns {before} into {after}; mipnet reads networks in one number type, so take the cast out")
    return _reshape(call, x)
