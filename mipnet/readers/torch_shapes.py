"""Torch's reshaping, joining and copying operators; see `mipnet.readers.torch_call`, and `mipnet.readers.operators.shapes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mipnet.network.graph import size
from mipnet.readers.conversion import Value
from mipnet.readers.operators import shapes
from mipnet.readers.torch_call import TorchCall, TorchConstant, reads
from mipnet.readers.torch_graph import IDENTITY_OPERATORS

# Shapes and several inputs


@reads("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints", alias=True, operator="reshape")
@reads("aten.unflatten.int", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.squeeze.dims", alias=True, operator="reshape")
@reads("aten.view_copy.default", "aten.squeeze_.dim", "aten.unsqueeze_.default", alias=True, operator="reshape")
def reshape(call: TorchCall, x: Value, *rest: Any) -> Value:
    """Convert a reshape to the shape that torch recorded."""
    return _reshape(call, x)


@reads("aten.squeeze.default", alias=True, operator="reshape")
def squeeze(call: TorchCall, x: Value) -> Value:
    """Refuse the operator: at batch size 1 it removes the sample axis too."""
    return call.refuse("without an axis it removes the sample axis of a single sample too; write `squeeze(dim)` or `flatten(1)`")


def _reshape(call: TorchCall, x: Value) -> Value:
    found = call.node.meta["val"].shape
    before = call.node.args[0].meta["val"].shape  # type: ignore[union-attr]
    if not found or str(found[0]) != str(before[0]):
        call.refuse(f"it mixes samples: {tuple(before)} becomes {tuple(found)}, and the first axis numbers the samples")
    return shapes.reshape(call, x, call.shape)


@reads("aten.permute.default", alias=True, operator="permute")
def permute(call: TorchCall, x: Value, order: Sequence[int]) -> Value:
    """Convert a permutation of the axes that leaves the sample axis first."""
    axes = [axis % call.rank for axis in order]
    if axes[0] != 0:
        call.refuse("it moves the sample axis")
    return shapes.permute(call, x, [axis - 1 for axis in axes[1:]]) if len(axes) > 1 else x


@reads("aten.transpose.int", "aten.transpose_.int", "aten.swapaxes.default", alias=True, operator="permute")
def transpose(call: TorchCall, x: Value, first: int, second: int) -> Value:
    """Convert the swap of two axes."""
    order = list(range(call.rank))
    order[first], order[second] = order[second], order[first]
    return permute(call, x, order)


@reads("aten.mT.default", "aten.adjoint.default", alias=True, operator="permute")
def matrix_transpose(call: TorchCall, x: Value) -> Value:
    """Convert the swap of the last two axes."""
    return transpose(call, x, -2, -1)


@reads("aten.movedim.int", alias=True, operator="permute")
def movedim(call: TorchCall, x: Value, source: int, target: int) -> Value:
    """Convert the move of one axis."""
    order = [axis for axis in range(call.rank) if axis != source % call.rank]
    order.insert(target % call.rank, source % call.rank)
    return permute(call, x, order)


@reads("aten.cat.default", "aten.concat.default", "aten.concatenate.default", operator="concatenate")
def concatenate(call: TorchCall, parts: Sequence[Any], axis: int = 0) -> Value:
    """Convert a concatenation along an axis of one sample, also with constants."""
    place = axis % call.node.meta["val"].ndim
    if place == 0:
        call.refuse("it concatenates along the sample axis")
    values = [part for part in parts if isinstance(part, Value)]
    if len(values) < len(parts) or len(call.node.meta["val"].shape) - 1 != len(values[0].shape):
        joined: Value = copied(call, *parts)
        return joined
    return shapes.concatenate(call, values, place - 1)


@reads("aten.stack.default", operator="concatenate")
def stack(call: TorchCall, parts: Sequence[Any], axis: int = 0) -> Value:
    """Convert a concatenation along a new axis."""
    if any(not isinstance(part, Value) for part in parts):
        joined: Value = copied(call, *parts)
        return joined
    place = axis % call.node.meta["val"].ndim
    if place == 0:
        call.refuse("it concatenates along the sample axis")
    shape = list(call.shape)
    shape[place - 1] = 1
    return shapes.concatenate(call, [call.reshape(part, tuple(shape)) for part in parts], place - 1)


# Copies of elements


@reads("aten.slice.Tensor", "aten.select.int", "aten.narrow.default", "aten.expand.default", alias=True, operator="copies")
@reads("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", alias=True, operator="copies")
@reads("aten.unbind.int", "aten.tensor_split.sections", "aten.diagonal.default", "aten.unfold.default", alias=True, operator="copies")
@reads(
    "aten.broadcast_to.default",
    "aten.expand_as.default",
    "aten.slice_copy.Tensor",
    "aten.select_copy.int",
    "aten.expand_copy.default",
    alias=True,
    operator="copies",
)
@reads("aten.index.Tensor", "aten.index_select.default", "aten.gather.default", "aten.flip.default", "aten.roll.default", operator="copies")
@reads("aten.repeat.default", "aten.tile.default", "aten.repeat_interleave.self_int", "aten.rot90.default", operator="copies")
@reads("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.channel_shuffle.default", operator="copies")
@reads("aten.native_channel_shuffle.default", "aten.im2col.default", "aten.tril.default", "aten.triu.default", operator="copies")
@reads("aten.upsample_nearest1d.default", "aten.upsample_nearest2d.default", "aten.upsample_nearest3d.default", operator="copies")
@reads("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest3d.vec", operator="copies")
@reads("aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec", operator="copies")
@reads("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default", operator="copies")
@reads("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default", operator="copies")
@reads("aten.slice_scatter.default", "aten.select_scatter.default", "aten.index_put.default", "aten.where.self", operator="copies")
@reads("aten.constant_pad_nd.default", "aten.pad.default", "aten.masked_fill.Scalar", "aten.scatter.value", operator="copies")
@reads("aten.masked_fill.Tensor", "aten.scatter.src", "aten.diagonal_scatter.default", "aten.where.ScalarOther", operator="copies")
@reads("aten.where.ScalarSelf", "aten._unsafe_index.Tensor", "aten.copy.default", "aten.index_fill.int_Scalar", operator="copies")
@reads("aten.fill.Tensor", "aten.fill.Scalar", operator="copies")
def copied(call: TorchCall, *given: Any) -> Any:
    """Convert an operator that copies elements of its inputs: torch's own operator says where each element of the result comes from.

    It is given the numbers of the elements, from 1 on and others for each sample, and 0 for constants; and then zeros for the elements.
    """
    values = list(dict.fromkeys(v for v in (call.values.get(node) for node in call.node.all_input_nodes) if isinstance(v, Value)))
    starts = [sum(size(value.shape) for value in values[:k]) for k in range(len(values))]
    total, samples = sum(size(value.shape) for value in values), call.samples
    sources = {v: tuple(node.meta["val"].shape) for node in call.node.all_input_nodes if isinstance(v := call.values.get(node), Value)}

    def numbered(value: Value) -> Tensor:
        first = 1 + starts[values.index(value)] + torch.arange(samples)[:, None] * total
        return (first + torch.arange(size(value.shape))).to(torch.float64).reshape(samples, *sources[value][1:])

    def zeros(value: Value) -> Tensor:
        return torch.zeros(samples, *sources[value][1:], dtype=torch.float64)

    if any(isinstance(value, Value) for value in given[1:2]) and str(call.node.target).startswith(("aten.gather", "aten.index")):
        call.refuse("its places depend on the network's input; expected constants")
    scalars = {"value": 0.0, "other": 0.0, "self": 0.0} if not str(call.node.target).startswith("aten.gather") else {}
    numbers = call.evaluate(numbered, torch.zeros_like, _numbers_only(call, scalars))
    constants = call.evaluate(zeros, lambda tensor: tensor, {})
    if isinstance(numbers, Tensor):
        return _copies(call, values, numbers, constants, total)
    return [_copies(call, values, each, fill, total) for each, fill in zip(numbers, constants, strict=True)]


def _numbers_only(call: TorchCall, wanted: dict[str, float]) -> dict[str, float]:
    """Return the arguments among ``wanted`` that are plain numbers in this call."""
    schema = call.node.target._schema  # type: ignore[union-attr]
    named = {**dict(zip((each.name for each in schema.arguments), call.node.args, strict=False)), **call.node.kwargs}
    return {name: value for name, value in wanted.items() if isinstance(named.get(name), int | float)}


def _copies(call: TorchCall, values: list[Value], numbers: Tensor, constants: Tensor, total: int) -> Value | TorchConstant:
    places = numbers.round().to(torch.int64) - 1
    sample = torch.arange(call.samples).reshape(-1, *[1] * (places.ndim - 1))
    own = torch.where(places >= 0, places - sample * total, -1) if len(places) == call.samples else places
    inside = own >= 0
    kept = len(places) == call.samples and bool(((own < total) & (inside == (places >= 0)))[places >= 0].all())
    if not kept or not torch.equal(own, own[:1].expand_as(own)) or not torch.equal(constants, constants[:1].expand_as(constants)):
        call.refuse("it mixes samples, and the first axis numbers the samples")
    if not bool(inside.any()):
        return TorchConstant(constants)
    shape = tuple(int(n) for n in own.shape[1:]) or (1,)
    fill = torch.where(inside[0], 0.0, constants[0].to(torch.float64)).reshape(shape)
    return shapes.copies(call, values, own[0].reshape(shape), fill if bool(fill.any()) else torch.tensor(0.0))


# Operators without effect


@reads("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default", alias=True, operator="same")
@reads("aten.alpha_dropout.default", "aten.feature_alpha_dropout.default", alias=True, operator="same")
def dropout(call: TorchCall, x: Value, share: float, train: bool) -> Value:
    """Return the input: dropout acts in training mode only."""
    return (
        shapes.same(call, x)
        if not train or share == 0
        else call.refuse("it drops at random; export the module in eval mode (`module.eval()`)")
    )


@reads(*sorted(IDENTITY_OPERATORS), alias=True, operator="same")
def identity(call: TorchCall, x: Value, *rest: Any) -> Value:
    """Return the input; refuses a change of its number type, except to float32 and back."""
    source = call.node.args[0]
    before, after = source.meta["val"].dtype, call.node.meta["val"].dtype  # type: ignore[union-attr]
    if before != after:
        call.refuse(f"it turns {before} into {after}; mipnet reads networks in one number type, so take the cast out")
    return _reshape(call, x)
