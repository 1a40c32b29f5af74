"""ONNX's reshaping, joining and copying operators; see `mipnet.readers.onnx_call`, and `mipnet.readers.operators.shapes`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mipnet.network.graph import size
from mipnet.readers.onnx_call import OnnxCall, OnnxConstant, OnnxTensor, axes_of, one_sample, reads
from mipnet.readers.operators import shapes


@reads("Flatten", operator="reshape")
def flatten(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert to two axes: those before ``axis`` as one, the others as the second."""
    axis = int(call.get("axis", 1))
    if not -len(x.dims) <= axis <= len(x.dims):
        call.refuse(f"its axis is {axis} and its input has shape {list(x.dims)}")
    axis += len(x.dims) if axis < 0 else 0
    return call.view(x, (math.prod(x.dims[:axis]), math.prod(x.dims[axis:])))


@reads("Reshape", operator="reshape")
def reshape(call: OnnxCall, x: Any, target: Any) -> OnnxTensor:
    """Convert a reshape: 0 keeps a length (unless `allowzero`), and one -1 stands for the remaining length."""
    x, wanted = call.value(x), list(call.integers(target, "its shape"))
    if not call.flag("allowzero"):
        if any(n == 0 for n in wanted[len(x.dims) :]):
            call.refuse(f"its shape is {wanted} and its input has shape {list(x.dims)}; 0 stands where the input has no axis")
        wanted = [x.dims[i] if n == 0 else n for i, n in enumerate(wanted)]
    count, known = math.prod(x.dims), math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known > 0 and count % known == 0:
        wanted[wanted.index(-1)] = count // known
    if not wanted or min(wanted) < 1 or math.prod(wanted) != count:
        why = "export the network for one sample or for any number of them"
        call.refuse(f"{count} elements of shape {list(x.dims)} do not fill shape {wanted}; {why}")
    return call.view(x, tuple(wanted))


@reads("Squeeze", operator="reshape")
def squeeze(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the removal of all axes of length 1, or of the given ones."""
    x, given = call.value(x), axes_of(call, axes, 13)
    rank = len(x.dims)
    gone = {axis % rank for axis in given} if given else {axis for axis, n in enumerate(x.dims) if n == 1}
    if any(not -rank <= axis < rank for axis in given) or any(x.dims[axis] != 1 for axis in gone) or len(gone) == rank:
        call.refuse(f"it takes axes {given or sorted(gone)} away from shape {list(x.dims)}; expected axes of length 1, and not all of them")
    return call.view(x, tuple(n for axis, n in enumerate(x.dims) if axis not in gone))


@reads("Unsqueeze", operator="reshape")
def unsqueeze(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the insertion of axes of length 1."""
    x, given = call.value(x), axes_of(call, axes, 13)
    rank = len(x.dims) + len(given)
    if not given or any(not -rank <= axis < rank for axis in given) or len({axis % rank for axis in given}) < len(given):
        call.refuse(f"it puts axes {given} into shape {list(x.dims)}; expected different axes from {-rank} to {rank - 1}")
    dims = list(x.dims)
    for axis in sorted(axis % rank for axis in given):
        dims.insert(axis, 1)
    return call.view(x, tuple(dims))


@reads("Transpose", operator="permute")
def transpose(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert a permutation of the axes; without `perm` their order is reversed."""
    rank = len(x.dims)
    order = tuple(int(axis) for axis in call.get("perm", range(rank - 1, -1, -1)))
    if sorted(order) != list(range(rank)):
        call.refuse(f"its perm is {list(order)} and its input has shape {list(x.dims)}")
    dims = tuple(x.dims[axis] for axis in order)
    wide = [axis for axis in order if x.dims[axis] > 1]
    if wide == sorted(wide):  # axes of length 1 move no element
        return call.view(x, dims)
    core = call.view(x, (1, *(n for n in x.dims if n > 1)))
    rank_of = {axis: place for place, axis in enumerate(sorted(wide))}
    return call.view(shapes.permute(call, core, [rank_of[axis] for axis in wide]), dims)


@reads("Concat", operator="concatenate")
def concatenate(call: OnnxCall, *parts: Any) -> OnnxTensor:
    """Convert a concatenation along an axis of one sample, also with constants."""
    if any(isinstance(part, OnnxConstant) for part in parts):
        joined: OnnxTensor = copied(call, *parts)
        return joined
    values = [call.value(part, "one of its parts") for part in parts]
    rank, axis = len(values[0].dims), int(call.get("axis", 0))
    if any(len(value.dims) != rank for value in values) or not -rank <= axis < rank:
        call.refuse(f"its parts have shapes {[list(value.dims) for value in values]} and its axis is {axis}")
    lead = rank > 1 and all(value.dims[0] == 1 for value in values)
    if lead and axis % rank == 0:
        call.refuse("it concatenates along the sample axis")
    dims = list(values[0].dims)
    dims[axis] = sum(value.dims[axis] for value in values)
    full = [value if lead or value.shape == value.dims else call.view(value, (1, *value.dims)) for value in values]
    return call.view(shapes.concatenate(call, full, axis % rank - int(lead)), tuple(dims))


# Copies of elements


@reads("Slice", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "Split", "Pad", "Where", operator="copies")
@reads("DepthToSpace", "SpaceToDepth", "ScatterND", "ScatterElements", "Trilu", "ReverseSequence", "CenterCropPad", operator="copies")
def copied(call: OnnxCall, *given: Any) -> Any:
    """Convert an operator that copies elements of its inputs: the standard's own operator says where each element comes from.

    It is given the numbers of the elements, from 1 on, and 0 for constants; and then zeros for the elements.
    """
    if call.get("reduction", "none") != "none":
        call.refuse(f"its reduction is {call.get('reduction')}, which adds or compares; expected none")
    values = list(dict.fromkeys(each for each in given if isinstance(each, OnnxTensor)))
    if call.node.op_type in PLACE_INPUTS_END and any(
        isinstance(each, OnnxTensor) for each in given[1 : PLACE_INPUTS_END[call.node.op_type]]
    ):
        call.refuse("its places depend on the network input; expected constants")
    if call.node.op_type == "Where" and isinstance(given[0], OnnxTensor):
        call.refuse("its condition depends on the network input, which is not linear; write it with a ReLU, a maximum or a clip")
    starts = dict(zip(values, np.cumsum([0, *(size(value.shape) for value in values)]), strict=False))
    numbers = call.evaluate(lambda x: 1.0 + starts[x] + np.arange(size(x.shape), dtype=np.float64).reshape(x.dims), np.zeros_like)
    constants = call.evaluate(lambda x: np.zeros(x.dims), lambda array: array)
    found = [_copies(call, values, *pair) for pair in zip(numbers, constants, strict=True)]
    return found if len(call.node.output) > 1 else found[0]


PLACE_INPUTS_END = {"Gather": 2, "GatherElements": 2, "GatherND": 2, "ScatterND": 2, "ScatterElements": 2}
"""The number of inputs of operators up to the places, which must be constants."""


def _copies(call: OnnxCall, values: list[OnnxTensor], numbers: Any, constants: Any) -> OnnxTensor:
    dims = tuple(int(n) for n in numbers.shape) or (1,)
    places = torch.from_numpy(np.ascontiguousarray(np.rint(numbers), dtype=np.int64) - 1).reshape(one_sample(dims))
    fill = torch.where(places >= 0, 0.0, torch.from_numpy(np.ascontiguousarray(constants, dtype=np.float64).reshape(one_sample(dims))))
    return call.view(shapes.copies(call, values, places, fill if bool(fill.any()) else torch.tensor(0.0)), dims)


# Operators without effect


@reads("Identity", operator="same")
def identity(call: OnnxCall, x: Any) -> OnnxTensor:
    """Return the input."""
    return call.view(x, x.dims)


@reads("Dropout", operator="same")
def dropout(call: OnnxCall, x: Any, share: Any = None, training: Any = None) -> OnnxTensor:
    """Return the input: dropout acts in training only."""
    call.get("ratio"), call.get("seed")
    if training is not None and (not isinstance(training, OnnxConstant) or bool(np.any(training.array))):
        call.refuse("it drops at random; export the network in eval mode")
    return call.view(call.value(x), x.dims)


@reads("Shape", operator="same")
def shape(call: OnnxCall, x: Any) -> OnnxConstant:
    """Return the shape at batch size 1, or a slice of it."""
    start, end = call.get("start", 0), call.get("end")
    return OnnxConstant(np.array(x.dims[slice(start, end)], dtype=np.int64))


@reads("Size", operator="same")
def count(call: OnnxCall, x: Any) -> OnnxConstant:
    """Return the number of elements at batch size 1."""
    return OnnxConstant(np.array(math.prod(one_sample(x.dims)), dtype=np.int64))
