"""ONNX files that onnxruntime runs although onnx's checker refuses them: read, with the outputs of onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipnet as mn
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.readers.onnx_normal import sorted_nodes
from tests.readers.onnx_graphs import error_of, model, numbers, runtime

Change = Callable[[onnx.ModelProto], Any]


def residual() -> onnx.ModelProto:
    """Two convolutions, a residual addition whose order matters, and a dense layer with a bias of its own."""
    nodes = [
        ("Conv", ["x", "k"], "a", {"pads": [1, 1, 1, 1]}),
        ("Relu", ["a"], "b", {}),
        ("Conv", ["b", "l"], "c", {"pads": [1, 1, 1, 1]}),
        ("Sub", ["c", "b"], "d", {}),
        ("Flatten", ["d"], "e", {}),
        ("MatMul", ["e", "w"], "f", {}),
        ("Add", ["f", "v"], "y", {}),
    ]
    weights = {"k": numbers(3, 2, 3, 3), "l": numbers(3, 3, 3, 3), "w": numbers(75, 4), "v": numbers(4)}
    return model(nodes, weights, (1, 2, 5, 5))


def reordered(order: Callable[[int], Any]) -> Change:
    def change(built: onnx.ModelProto) -> None:
        nodes = sorted(enumerate(built.graph.node), key=lambda pair: order(pair[0]))
        del built.graph.node[:]
        built.graph.node.extend(node for _, node in nodes)

    return change


def weights_behind(built: onnx.ModelProto) -> None:
    """Every weight is a Constant node at the end."""
    for each in built.graph.initializer:
        built.graph.node.append(helper.make_node("Constant", [], [each.name], value=each))
    del built.graph.initializer[:]


def listed(*, typed: bool) -> Change:
    def change(built: onnx.ModelProto) -> None:
        for each in built.graph.initializer:
            given = built.graph.input.add(name=each.name)
            if typed:
                given.type.tensor_type.elem_type = each.data_type

    return change


def values_without_type(built: onnx.ModelProto) -> None:
    for node in built.graph.node:
        built.graph.value_info.add(name=node.output[0])
    built.graph.value_info.add()


LEGAL: dict[str, Change] = {
    "nodes in reverse": reordered(lambda place: -place),
    "nodes in any order": reordered(lambda place: (place * 3) % 7),
    "weights behind their readers": weights_behind,
    "output without a type": lambda m: m.graph.output[0].ClearField("type"),
    "output without a shape": lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
    "output of another shape": lambda m: m.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 9, 9])),
    "values without a type": values_without_type,
    "weights listed without a type": listed(typed=False),
    "weights listed without a shape": listed(typed=True),
    "no name": lambda m: m.graph.ClearField("name"),
    "the same opset twice": lambda m: m.opset_import.add(domain="", version=13),
    "opset under both names": lambda m: m.opset_import.add(domain="ai.onnx", version=14),
    "an older opset behind": lambda m: m.opset_import.add(domain="", version=11),
    "an opset that is not read, in front": lambda m: m.opset_import.insert(0, helper.make_opsetid("", 6)),
    "weights that the first versions list as inputs": lambda m: setattr(m, "ir_version", 3),
    "operators under the other name of their domain": lambda m: [setattr(node, "domain", "ai.onnx") for node in m.graph.node],
    "opsets of other domains": lambda m: m.opset_import.add(domain="com.microsoft", version=1),
}


@pytest.mark.parametrize("name", LEGAL)
def test_read_as_onnxruntime_runs_it(tmp_path: Path, name: str) -> None:
    built = residual()
    LEGAL[name](built)
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 5, 5, seed=1)
    assert error_of(mn.read(path).forward(x), runtime(path, x)) < 1e-5


@pytest.mark.parametrize("seed", range(10))
def test_all_at_once_in_a_random_order(tmp_path: Path, seed: int) -> None:
    built, places = residual(), np.random.default_rng(seed).permutation(20)
    for name in ("weights behind their readers", "output without a type", "values without a type", "no name", "an older opset behind"):
        LEGAL[name](built)
    reordered(lambda place: places[place])(built)
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 5, 5, seed=seed)
    assert error_of(mn.read(path).forward(x), runtime(path, x)) < 1e-5


@pytest.mark.parametrize("opsets", [(9, 13), (13, 9), (9, 13, 9), (13, 9, 13)])
@pytest.mark.parametrize("domains", [("", "", ""), ("ai.onnx", "", "ai.onnx"), ("", "ai.onnx", "")])
def test_the_last_of_several_opsets_counts(tmp_path: Path, opsets: tuple[int, ...], domains: tuple[str, ...]) -> None:
    """Softmax without an axis: the last axis from version 13 on, before that all axes but the first."""
    built = model([("Softmax", ["x"], "y", {})], {}, (1, 2, 3), 13)
    del built.opset_import[:]
    built.opset_import.extend(helper.make_opsetid(*pair) for pair in zip(domains, opsets, strict=False))
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 3)
    logits = np.exp(mn.read(path).forward(x).reshape(1, 2, 3))
    axes = (2,) if opsets[-1] == 13 else (1, 2)
    assert error_of(logits / logits.sum(axes, keepdims=True), runtime(path, x)) < 1e-6


def test_a_graph_without_nodes(tmp_path: Path) -> None:
    """onnxruntime returns the input."""
    built = model([], {}, (1, 2, 3), out=("x",))
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 3)
    assert (mn.read(path).forward(x) == runtime(path, x)).all()
    del built.graph.output[:]
    built.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    built.graph.initializer.append(numpy_helper.from_array(numbers(2), "w"))
    path.write_bytes(built.SerializeToString())
    with pytest.raises(UnsupportedError, match="output `w` does not depend on the input"):
        mn.read(path)


def test_a_cycle_is_refused_and_keeps_its_order(tmp_path: Path) -> None:
    nodes = [("Add", ["x", "b"], "a", {}), ("Relu", ["a"], "b", {}), ("Relu", ["b"], "y", {})]
    built = model(nodes, {}, (1, 3))
    assert [node.op_type for node in sorted_nodes(built.graph)] == ["Add", "Relu", "Relu"]
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    with pytest.raises(NetworkError, match="sorted"):
        mn.read(path)


def test_sorting_moves_no_more_than_it_must() -> None:
    built = residual()
    wanted = [node.name for node in built.graph.node]
    assert [node.name for node in sorted_nodes(built.graph)] == wanted
    reordered(lambda place: {1: 6.5}.get(place, place))(built)  # the first activation stands last
    assert [node.name for node in sorted_nodes(built.graph)] == wanted


def test_operators_that_the_output_does_not_need(tmp_path: Path) -> None:
    """Branches that nothing reads may hold what mipnet does not have."""
    built = residual()
    built.graph.node.insert(1, helper.make_node("Sigmoid", ["a"], ["unused"], name="dead"))
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 5, 5, seed=1)
    assert error_of(mn.read(path).forward(x), runtime(path, x)) < 1e-5


def with_functions(bodies: dict[str, list[tuple[str, list[str], str]]], opset: int = 13) -> onnx.ModelProto:
    """`residual` with local functions in place of its activation; a body is a list of (operator, inputs, output), from `a` to `b`."""
    built = residual()
    for name, nodes in bodies.items():
        made = [helper.make_node(op, read, [out], domain="own" if op in bodies else "") for op, read, out in nodes]
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
        built.functions.append(helper.make_function("own", name, ["a"], ["b"], made, imports))
    built.opset_import.add(domain="own", version=1)
    built.graph.node[1].CopyFrom(helper.make_node(next(iter(bodies)), ["a"], ["b"], domain="own"))
    return built


FUNCTIONS = {
    "Outer": [("Inner", ["a"], "c"), ("Neg", ["c"], "d"), ("Inner", ["d"], "e"), ("Sub", ["c", "e"], "b")],
    "Inner": [("Relu", ["a"], "c"), ("Add", ["c", "c"], "b")],
}


@pytest.mark.parametrize(("bodies", "opset"), [(FUNCTIONS, 13), ({"Alone": [("Relu", ["a"], "b")]}, 11)])
def test_local_functions(tmp_path: Path, bodies: dict[str, list[tuple[str, list[str], str]]], opset: int) -> None:
    built = with_functions(bodies, opset)
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    x = numbers(1, 2, 5, 5, seed=1)
    assert error_of(mn.read(path).forward(x), runtime(path, x)) < 1e-5
    reordered(lambda place: -place)(built)
    path.write_bytes(built.SerializeToString())
    assert error_of(mn.read(path).forward(x), runtime(path, x)) < 1e-5


def test_functions_that_cannot_be_written_out_are_refused(tmp_path: Path) -> None:
    loop = with_functions({"Loop": [("Loop", ["a"], "b")]})
    doubling = with_functions(
        {f"F{k}": [(f"F{k + 1}", ["a"], "c"), (f"F{k + 1}", ["c"], "b")] for k in range(40)} | {"F40": [("Relu", ["a"], "b")]}
    )
    unread = with_functions({"Curve": [("Sigmoid", ["a"], "b")]})
    newer = with_functions({"Change": [("Sub", ["a", "a"], "b")]}, 14)  # onnx has no converter from 14 to 13
    for built, words in (
        (newer, "the functions in .* cannot be read"),
        (loop, "call themselves or make more than 1,000,000"),
        (doubling, "make more than"),
        (unread, "`Sigmoid`"),
    ):
        path = tmp_path / "net.onnx"
        path.write_bytes(built.SerializeToString())
        with pytest.raises(UnsupportedError, match=words) as caught:
            mn.read(path)
        assert "\n" not in str(caught.value)
