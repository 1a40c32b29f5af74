"""Networks in ONNX files: checked, read operator by operator, and compared with onnxruntime where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mipnet.errors import NetworkError, UnsupportedError
from mipnet.network.graph import Network
from mipnet.readers import onnx_ops, onnx_shapes, onnx_windows  # noqa: F401 - they register the rules
from mipnet.readers.lowering import one_line
from mipnet.readers.onnx_call import RULES, place
from mipnet.readers.onnx_fold import FOLDED
from mipnet.readers.onnx_graph import LAST, Reading, supported
from mipnet.readers.onnx_session import open_session
from mipnet.readers.packed import unpacked
from mipnet.readers.torch import weight_notes

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

OLDEST = 8
"""The first version of the operators that is read."""

DIFFERENCE = {False: 1e-3, True: 5e-2}
"""How far the network and onnxruntime may lie apart, relative to the largest output, in float32 and in numbers of 16 bits."""


def from_onnx(path: str | Path) -> Network:
    """The network of an .onnx file, gzipped or not, with float64 weights; it computes what the graph computes at batch size 1.

    The graph has one input and one output.  A first axis of length 1, or of any length, numbers the samples; an input without such
    an axis is one sample as a whole.  Constant parts are computed, a softmax or log-softmax at the very end is taken off, and
    `Network.notes` say so.  Where onnxruntime is installed the network is compared with it on random inputs.

    Raises `UnsupportedError` for operators, attributes and types that mipnet does not have, naming the operator and its node,
    `NetworkError` for files that are broken, for weights that are NaN and where the network would not be the graph.
    """
    path = Path(path)
    model, opset = _load(path)
    reading = Reading(model.graph, opset)
    try:
        network = reading.network()
    except (UnsupportedError, NetworkError) as error:
        raise type(error)(f"`{path}`: {error}") from None
    notes = _compare(model, network, reading, path)
    return network.with_notes(*notes, *weight_notes(network))


def _load(path: Path) -> tuple[ModelProto, int]:
    """The model with its weights, and the version of its operators."""
    if find_spec("onnx") is None:
        raise UnsupportedError(f"`{path}` needs the package onnx, which is not installed: pip install mipnet[onnx]")
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(unpacked(path, "an .onnx file", NetworkError))
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(f"`{path}` is no ONNX file, or it is cut off ({one_line(error)}); export the network again") from None
    if not model.HasField("graph") or not model.graph.output:
        raise NetworkError(f"`{path}` holds no graph of ONNX; export the network again")
    opset = _opset(model, path, onnx.defs.onnx_opset_version())
    _refuse_unread(model, path)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _take_in(tensor, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        if model.ByteSize() < 2**31:  # above, the checker itself gives up
            raise NetworkError(f"`{path}` is not valid ONNX ({one_line(error)}); export the network again") from None
    _refuse_missing(model, opset, path)
    return model, opset


def _opset(model: ModelProto, path: Path, newest: int) -> int:
    versions = {each.version for each in model.opset_import if each.domain in ("", "ai.onnx")}
    if len(versions) != 1 or not OLDEST <= min(versions) <= newest:
        given = ", ".join(map(str, sorted(versions))) or "none"
        raise UnsupportedError(f"`{path}` uses version {given} of ONNX's operators (opset); expected one from {OLDEST} to {newest}")
    return int(versions.pop())


def _refuse_unread(model: ModelProto, path: Path) -> None:
    """Name operators that are not read before the checker says less about them."""
    known = {*RULES, *FOLDED.split(), *LAST}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            raise UnsupportedError(f"`{path}`: {place(node)} cannot be read; mipnet reads {supported()}")
    if model.graph.sparse_initializer:
        raise UnsupportedError(f"`{path}` holds sparse initialisers; expected dense ones")


def _refuse_missing(model: ModelProto, opset: int, path: Path) -> None:
    """Refuse an empty name in place of an input that is not optional: onnx's checker lets it pass, and onnxruntime dies of it."""
    from onnx.defs import OpSchema, get_schema

    for node in model.graph.node:
        formal = get_schema(node.op_type, opset).inputs
        for index, name in enumerate(node.input):
            if not name and formal[min(index, len(formal) - 1)].option != OpSchema.FormalParameterOption.Optional:
                raise NetworkError(f"`{path}`: {place(node)} lacks its input {index + 1}; export the network again")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _take_in(tensor: TensorProto, path: Path) -> None:
    """Put weights from a file beside the model into it; any other file is refused."""
    from onnx import TensorProto

    given = {entry.key: entry.value for entry in tensor.external_data}
    what = f"`{path}`: the weights `{tensor.name}`"
    location = Path(given.get("location", ""))
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if not given.get("location") or location.is_absolute() or ".." in location.parts or not target.is_relative_to(folder):
        raise UnsupportedError(f"{what} lie in `{str(location)[:80]}`; mipnet reads files in the folder of the network and below")
    if not target.is_file():
        raise NetworkError(f"{what} lie in `{str(location)[:80]}`, which is not there; keep that file beside the network")
    try:
        start, length = int(given.get("offset", 0)), int(given.get("length", -1))
    except ValueError:
        start = length = -2
    size = target.stat().st_size
    length = size - start if length == -1 else length
    if start < 0 or length < 0 or start + length > size:
        raise NetworkError(f"{what} should be {given.get('length')} bytes from {given.get('offset')} on in `{location}`, which has {size}")
    with target.open("rb") as stream:
        stream.seek(start)
        tensor.raw_data = stream.read(length)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _compare(model: ModelProto, network: Network, reading: Reading, path: Path) -> list[str]:
    """Raise `NetworkError` unless onnxruntime computes the same; a note where it cannot run the graph, nothing where it is missing."""
    if find_spec("onnxruntime") is None or model.ByteSize() >= 2**31:
        return []
    x = np.random.default_rng(0).standard_normal((4, *network.input_shape))
    try:
        wanted = open_session(model).run(x).reshape(4, -1)
    except Exception as error:
        return [f"not compared with onnxruntime, which cannot run it ({one_line(error)})"]
    if not np.isfinite(wanted).all():
        raise NetworkError(f"`{path}` gives NaN or infinite outputs for random inputs, says onnxruntime; its numbers are too large for it")
    outputs = network.forward(x)
    half = any(each.type.tensor_type.elem_type in (10, 16) for each in model.graph.input)  # FLOAT16, BFLOAT16
    found = (reading.last.of(outputs) if reading.last else outputs).reshape(4, -1)
    far = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()) if found.shape == wanted.shape else np.inf
    if not far <= DIFFERENCE[half]:
        raise NetworkError(
            f"`{path}`: the network read from the file is not what onnxruntime computes: on random inputs they differ by {far:.1e},"
            " relative to the largest output; please report this file"
        )
    return []
