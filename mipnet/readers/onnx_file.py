"""Networks in ONNX files: checked, read operator by operator, and compared with onnxruntime if it is installed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mipnet.errors import NetworkError, TimeLimitReached, UnsupportedError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.network.graph import Network
from mipnet.readers import onnx_activations, onnx_ops, onnx_shapes, onnx_windows  # noqa: F401 - they register the rules
from mipnet.readers.conversion import check_file, one_line, reading
from mipnet.readers.file_bytes import read_bytes
from mipnet.readers.onnx_call import ONNX_RULES, place
from mipnet.readers.onnx_fold import FOLDED_OPERATORS
from mipnet.readers.onnx_graph import ONNX_SOFTMAXES, OnnxReader, needed
from mipnet.readers.onnx_normal import expanded_nodes, normal_form, operator_versions
from mipnet.readers.onnx_session import open_session
from mipnet.readers.operators.remedies import refusal
from mipnet.readers.torch import weight_notes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET_MIN = 8
"""The oldest version of ONNX's operators that is read."""

PROTOBUF_BYTES_MAX = 2**31
"""Size from which on a model cannot be handed to onnx's checker and to onnxruntime as one message."""

EXPANDED_NODES_MAX = 1_000_000
"""Largest number of nodes of a graph whose functions are written out."""

OUTPUT_DIFFERENCE_MAX = {False: 1e-3, True: 5e-2}
"""Largest difference between the network and onnxruntime, relative to the largest output: in float32, and (True) in 16 bits."""


@suggest_keywords
def from_onnx(path: str | Path, time_limit: TimeLimit = None) -> Network:
    """Read the network of an .onnx file, compressed or not, with float64 weights; it computes what the graph computes at batch size 1.

    The graph has one input and one output.  A first axis of length 1, or of variable length, is the sample axis; an input without
    such an axis is read as one sample.  Constants are folded, and a final softmax or log-softmax is taken off, see
    `Network.softmax`.  If onnxruntime is installed, the network is compared with it on random inputs.

    ``time_limit`` is in seconds of the whole call, None for no limit; it does not end the single calls of onnx and of onnxruntime that take
    the whole file (parsing, the checker, making a session): together about 1 s of CPU per 100 MB.  Raises `TimeLimitReached` at its end.
    Raises `UnsupportedError` for operators, attributes and types that mipnet does not have, naming the operator and its node.
    Raises `NetworkError` for broken files, for weights that are NaN, and if the network differs from the graph.
    """
    path, deadline = Path(path), Deadline.after(time_limit)
    loaded = _load(path, deadline)
    with reading(f"`{path}`", sum(math.prod(tensor.dims) for tensor in _tensors(loaded.model))):
        reader = OnnxReader(loaded.model.graph, loaded.opset, deadline)
        try:
            network = reader.network()
        except (UnsupportedError, NetworkError) as error:
            raise type(error)(f"`{path}`: {error}") from None
        notes = _compare(loaded.original, network, path, deadline)
        return network.with_notes(*notes, *weight_notes(network, deadline))


class LoadedModel(NamedTuple):
    """The ``original`` model of a file with its weights, the ``model`` in the form that onnx's checker takes, and its ``opset``."""

    original: ModelProto
    model: ModelProto
    opset: int


def _load(path: Path, deadline: Deadline = NO_DEADLINE) -> LoadedModel:
    """Return the checked model with its weights, and the version of its operators."""
    if find_spec("onnx") is None:
        raise UnsupportedError(f"`{path}` needs the package onnx, which is not installed: pip install mipnet[onnx]")
    import onnx

    model = onnx.ModelProto()
    if path.is_file():
        check_file(path, path.stat().st_size)
    try:
        model.ParseFromString(read_bytes(path, "an .onnx file", NetworkError))
    except (NetworkError, MemoryError):
        raise
    except Exception as error:
        raise NetworkError(f"`{path}` is no ONNX file, or it is cut off ({one_line(error)}); export the network again") from None
    if not model.HasField("graph") or not model.graph.output:
        raise NetworkError(f"`{path}` holds no graph of ONNX; export the network again")
    deadline.check(f"read `{path}`")
    opset = _opset(model, path, onnx.defs.onnx_opset_version())
    original = model
    if model.functions:
        model = _without_functions(model, path)
    _refuse_unread(model, path)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            deadline.check(f"read the weights of `{path}`")
            _load_external(tensor, path)
    deadline.check(f"check `{path}`")
    checked = _checked(model, path)
    _refuse_missing(checked, opset, path)
    return LoadedModel(original, checked, opset)


def _without_functions(model: ModelProto, path: Path) -> ModelProto:
    """Return the model with the nodes of its local functions in place of their calls."""
    from onnx.inliner import inline_local_functions
    from onnx.shape_inference import infer_shapes

    nodes = expanded_nodes(model)
    if not nodes <= EXPANDED_NODES_MAX:
        why = f"call themselves or make more than {EXPANDED_NODES_MAX:,} nodes"
        raise UnsupportedError(f"`{path}` has functions that {why}; export the network without functions")
    try:
        return inline_local_functions(infer_shapes(normal_form(model)), convert_version=True)
    except Exception as error:
        why = one_line(error)
        raise UnsupportedError(f"the functions in `{path}` cannot be read ({why}); export the network without functions") from None


def _checked(model: ModelProto, path: Path) -> ModelProto:
    """Return the model, or what is equal to it, after onnx's checker took it; raises `NetworkError` if it does not."""
    from onnx.checker import check_model

    if model.ByteSize() >= PROTOBUF_BYTES_MAX:  # the checker itself gives up
        return model
    try:
        check_model(model)
        return model
    except Exception:
        normal = normal_form(model)
    try:
        check_model(normal)
    except Exception as error:
        raise NetworkError(f"`{path}` is not valid ONNX ({one_line(error)}); export the network again") from None
    return normal


def _opset(model: ModelProto, path: Path, newest: int) -> int:
    version = operator_versions(model).get("")
    if version is None or not OPSET_MIN <= version <= newest:
        given = "none" if version is None else version
        raise UnsupportedError(f"`{path}` uses version {given} of ONNX's operators (opset); expected one from {OPSET_MIN} to {newest}")
    return version


def _refuse_unread(model: ModelProto, path: Path) -> None:
    """Refuse operators that are not read, by name: the message of onnx's checker would say less."""
    known = {*ONNX_RULES, *FOLDED_OPERATORS.split(), *ONNX_SOFTMAXES}
    for node in needed(model.graph, model.graph.output[0].name) if len(model.graph.output) == 1 else model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            hint = "the network is quantised, and its numbers are codes: export it before it is quantised" if is_quantised(node) else ""
            why = f"{place(node)} cannot be read; {hint}" if hint else refusal(place(node), str(node.op_type))
            raise UnsupportedError(f"`{path}`: {why}")
    stored = {each.name for each in model.graph.initializer}
    for given in model.graph.input:
        if given.name not in stored and not given.type.tensor_type.HasField("shape"):
            raise UnsupportedError(f"`{path}`: the input `{given.name}` has no shape; export the network with the sizes of one sample")
    if model.graph.sparse_initializer:
        raise UnsupportedError(f"`{path}` holds sparse initialisers; expected dense ones")


def is_quantised(node: NodeProto) -> bool:
    """Return True for an operator that computes with the codes of a quantised network."""
    return re.fullmatch(r"Q\w+|(Dynamic)?QuantizeLinear|DequantizeLinear|\w+Integer", str(node.op_type)) is not None


def _refuse_missing(model: ModelProto, opset: int, path: Path) -> None:
    """Refuse an empty name in place of a required input: onnx's checker accepts it, and onnxruntime crashes on it."""
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


def _load_external(tensor: TensorProto, path: Path) -> None:
    """Copy weights from a file beside the model into the model; files outside of its folder are refused."""
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
    check_file(target, length)
    with target.open("rb") as stream:
        stream.seek(start)
        tensor.raw_data = stream.read(length)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _compare(model: ModelProto, network: Network, path: Path, deadline: Deadline = NO_DEADLINE) -> list[str]:
    """Raise `NetworkError` unless onnxruntime computes the same outputs; returns a note if onnxruntime cannot run the graph."""
    work = f"compare the network of `{path}` with onnxruntime"
    deadline.check(work)
    if find_spec("onnxruntime") is None or model.ByteSize() >= PROTOBUF_BYTES_MAX:
        return []
    x = np.random.default_rng(0).standard_normal((4, *network.input_shape))
    try:
        session = open_session(model)
        deadline.check(work)
        wanted = session.run(x).reshape(4, -1)
    except TimeLimitReached:
        raise
    except Exception as error:
        return [f"not compared with onnxruntime, which cannot run it ({one_line(error)})"]
    if not np.isfinite(wanted).all():
        raise NetworkError(
            f"`{path}` gives NaN or infinite outputs for random inputs in onnxruntime; its weights are too large for its number type"
        )
    half = any(each.type.tensor_type.elem_type in (10, 16) for each in model.graph.input)  # FLOAT16, BFLOAT16
    deadline.check(work)
    found = network.outputs(x).reshape(4, -1)
    difference = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()) if found.shape == wanted.shape else np.inf
    if not difference <= OUTPUT_DIFFERENCE_MAX[half]:
        raise NetworkError(
            f"`{path}`: the network read from the file is not what onnxruntime computes: on random inputs they differ by {difference:.1e},"
            " relative to the largest output; please report this file"
        )
    return []
