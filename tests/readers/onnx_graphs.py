"""ONNX graphs written node by node, and their outputs in onnxruntime."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from torch import nn

NODE = tuple[str, Sequence[str], str, dict[str, Any]]
IR = {8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7}


def numbers(*shape: int, seed: int = 0, positive: bool = False) -> np.ndarray:
    values = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
    return np.abs(values) + np.float32(0.3) if positive else values


def model(
    nodes: Sequence[NODE],
    constants: dict[str, np.ndarray],
    shape: Sequence[int | str],
    opset: int = 13,
    *,
    kind: int = TensorProto.FLOAT,
    out: Sequence[str] = ("y",),
    listed: bool = False,
) -> onnx.ModelProto:
    """A model with the input `x`; nodes are (operator, inputs, output, attributes); ``listed`` repeats initialisers as inputs."""
    made = [helper.make_node(op, list(inputs), [output], name=f"{op}_{i}", **given) for i, (op, inputs, output, given) in enumerate(nodes)]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", kind, list(shape))]
    if listed or opset < 9:
        inputs += [helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in stored]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in out]
    graph = helper.make_graph(made, "test", inputs, outputs, stored)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR.get(opset, 8 if opset < 19 else 10))
    with contextlib.suppress(onnx.shape_inference.InferenceError):  # the checker requires the shapes of outputs
        built = onnx.shape_inference.infer_shapes(built)
    for each in built.graph.output:
        each.type.tensor_type.shape.SetInParent()
    del built.graph.value_info[:]
    return built


def dense_model(module: nn.Sequential) -> onnx.ModelProto:
    """The model of a torch module of Linear and ReLU layers, without torch's exporter, which takes seconds."""
    nodes: list[NODE] = []
    constants = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    for k, part in enumerate(module):
        before = "x" if k == 0 else f"h{k - 1}"
        name = "y" if k == len(module) - 1 else f"h{k}"
        if isinstance(part, nn.Linear):
            nodes.append(("Gemm", [before, f"{k}.weight", f"{k}.bias"], name, {"transB": 1}))
        else:
            nodes.append(("Relu", [before], name, {}))
    return model(nodes, constants, (1, constants["0.weight"].shape[1]))


def runtime(source: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    """The first output of onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    given = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def error_of(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference relative to the largest value (or to 1); the sizes must agree."""
    assert found.size == wanted.size
    return float(np.abs(found.reshape(-1) - wanted.reshape(-1)).max() / max(1.0, np.abs(wanted).max()))


def newest_opset() -> int:
    """The largest version of the operators that both onnx and onnxruntime know."""
    for opset in range(onnx.defs.onnx_opset_version(), 13, -1):
        try:
            runtime(model([("Relu", ["x"], "y", {})], {}, [1, 2], opset), np.ones((1, 2), np.float32))
        except Exception:
            continue
        return opset
    raise AssertionError


NEWEST = newest_opset()
