"""Conversion rules of ONNX's reshaping and joining operators; see `mipnet.readers.onnx_call`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mipnet.layers import Concat, Permute
from mipnet.readers.onnx_call import OnnxCall, OnnxConstant, OnnxTensor, axes_of, one_sample, reads


@reads("Flatten")
def flatten(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert to two axes: those before ``axis`` as one, the others as the second."""
    axis = int(call.get("axis", 1))
    if not -len(x.dims) <= axis <= len(x.dims):
        call.refuse(f"its axis is {axis} and its input has shape {list(x.dims)}")
    axis += len(x.dims) if axis < 0 else 0
    return call.view(x, (math.prod(x.dims[:axis]), math.prod(x.dims[axis:])))


@reads("Reshape")
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


@reads("Squeeze")
def squeeze(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the removal of all axes of length 1, or of the given ones."""
    x, given = call.value(x), axes_of(call, axes, 13)
    rank = len(x.dims)
    gone = {axis % rank for axis in given} if given else {axis for axis, n in enumerate(x.dims) if n == 1}
    if any(not -rank <= axis < rank for axis in given) or any(x.dims[axis] != 1 for axis in gone) or len(gone) == rank:
        call.refuse(f"it takes axes {given or sorted(gone)} away from shape {list(x.dims)}; expected axes of length 1, and not all of them")
    return call.view(x, tuple(n for axis, n in enumerate(x.dims) if axis not in gone))


@reads("Unsqueeze")
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


@reads("Transpose")
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
    turned = call.emit(Permute(tuple(rank_of[axis] for axis in wide)), core, dims=(1, *(n for n in dims if n > 1)))
    return call.view(turned, dims)


@reads("Concat")
def concatenate(call: OnnxCall, *parts: Any) -> OnnxTensor:
    """Convert a concatenation along an axis of one sample."""
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
    return call.emit(Concat(axis % rank - int(lead)), *full, dims=tuple(dims))


# Operators without effect


@reads("Identity")
def identity(call: OnnxCall, x: Any) -> OnnxTensor:
    """Return the input."""
    return call.view(x, x.dims)


@reads("Dropout")
def dropout(call: OnnxCall, x: Any, share: Any = None, training: Any = None) -> OnnxTensor:
    """Return the input: dropout acts in training only."""
    call.get("ratio"), call.get("seed")
    if training is not None and (not isinstance(training, OnnxConstant) or bool(np.any(training.array))):
        call.refuse("it drops at random; export the network in eval mode")
    return call.view(call.value(x), x.dims)


@reads("Shape")
def shape(call: OnnxCall, x: Any) -> OnnxConstant:
    """Return the shape at batch size 1, or a slice of it."""
    start, end = call.get("start", 0), call.get("end")
    return OnnxConstant(np.array(x.dims[slice(start, end)], dtype=np.int64))


@reads("Size")
def count(call: OnnxCall, x: Any) -> OnnxConstant:
    """Return the number of elements at batch size 1."""
    return OnnxConstant(np.array(math.prod(one_sample(x.dims)), dtype=np.int64))
