"""Elements in another shape, order or number: reshapes, permutations, concatenations, and all operators that only copy elements."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.layers import Concat, Gather, Permute
from mipnet.network.graph import size
from mipnet.readers.conversion import AnyValue, ConversionCall
from mipnet.readers.operators.table import operator


@operator("Reshape")
def reshape(call: ConversionCall[AnyValue], x: AnyValue, shape: Shape) -> AnyValue:
    """The same elements in the same order with another shape."""
    return call.reshape(x, shape)


@operator("Permute")
def permute(call: ConversionCall[AnyValue], x: AnyValue, order: Sequence[int]) -> AnyValue:
    """The axes in another order."""
    return x if list(order) == sorted(order) else call.emit(Permute(tuple(order)), x)


@operator("Concat")
def concatenate(call: ConversionCall[AnyValue], parts: Sequence[AnyValue], axis: int) -> AnyValue:
    """Values joined along an axis, or stacked along a new one."""
    return parts[0] if len(parts) == 1 else call.emit(Concat(axis), *parts)


@operator("Gather, after a Concat for several values; Reshape")
def copies(call: ConversionCall[AnyValue], values: Sequence[AnyValue], places: Tensor, fill: Tensor) -> AnyValue:
    """Elements and constants in any order and number: pads, slices, selections, flips, copies, nearest resampling.

    ``places`` are positions in the values, flat and one value after another, or -1 for the constant in ``fill``.
    """
    starts, used = [0], []
    for value in values:
        starts.append(starts[-1] + size(value.shape))
    inside = places >= 0
    found = places.clone()
    new_start = 0
    for value, start, end in zip(values, starts[:-1], starts[1:], strict=True):
        own = inside & (places >= start) & (places < end)
        if bool(own.any()):
            used.append(value)
            found[own] = places[own] - start + new_start
            new_start += end - start
    if not used:
        call.refuse("its result does not depend on the network's input")
    shape = tuple(int(n) for n in places.shape)
    if len(used) == 1:
        if torch.equal(found.flatten(), torch.arange(size(used[0].shape))):
            return call.reshape(used[0], shape)
        return call.emit(Gather(found, fill), used[0])
    joined = call.emit(Concat(0), *(call.reshape(value, (size(value.shape),)) for value in used))
    whole = torch.equal(found.flatten(), torch.arange(new_start))
    return call.reshape(joined, shape) if whole else call.emit(Gather(found, fill), joined)


@operator("none")
def same(call: ConversionCall[AnyValue], x: AnyValue) -> AnyValue:
    """Operators without effect: copies of a tensor, dropout in evaluation, casts between floating-point types."""
    return x
