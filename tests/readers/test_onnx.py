"""The ONNX reader: graphs built by hand, at least one per operator and variant, give the outputs of onnxruntime."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.readers import onnx_file
from mipnet.readers.onnx_file import from_onnx
from mipnet.readers.onnx_session import open_session
from tests.readers.onnx_graphs import NEWEST, error_of, model, numbers, runtime

DATA = Path(os.environ.get("MIPNET_DATA", "")) / "vnncomp"
INF = np.float32(np.inf)


def one(op: str, constants: dict[str, np.ndarray] | None = None, **attributes: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A graph of one operator: the input first, then constants."""
    return [(op, ["x", *(constants or {})], "y", attributes)], constants or {}


def floats(*values: Any) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


VEC, IMG, ODD, ROW = ("N", 6), ("N", 2, 8, 8), ("N", 2, 7, 9), ("N", 2, 11)
W, B = numbers(6, 4), numbers(4)
K, BIAS = numbers(4, 2, 3, 3), numbers(4)
NORM = {"scale": numbers(2), "b": numbers(2, seed=1), "mean": numbers(2, seed=2), "var": numbers(2, positive=True)}

GRAPHS: dict[str, tuple[tuple[list[Any], dict[str, np.ndarray]], tuple[Any, ...], tuple[int, ...]]] = {
    # name: (graph, input shape, opsets)
    "gemm": (one("Gemm", {"w": W, "b": B}), VEC, (8, 11, 13, NEWEST)),
    "gemm-scaled": (one("Gemm", {"w": W, "b": B}, alpha=0.5, beta=-2.0), VEC, (8, 13)),
    "gemm-trans-b": (one("Gemm", {"w": W.T.copy(), "b": B}, transB=1), VEC, (8, 13)),
    "gemm-trans-a": (one("Gemm", {"w": W, "b": B}, transA=1), (6, 1), (13,)),
    "gemm-no-c": (one("Gemm", {"w": W}), VEC, (11, NEWEST)),
    "gemm-scalar-c": (one("Gemm", {"w": W, "b": floats(0.7)}), VEC, (13,)),
    "gemm-row-c": (one("Gemm", {"w": W, "b": B[None]}), VEC, (8, 13)),
    "gemm-column": (([("Gemm", ["w", "x"], "y", {})], {"w": W.T.copy()}), (6, 1), (13,)),
    "gemm-column-trans": (([("Gemm", ["w", "x", "b"], "y", {"transA": 1, "transB": 1})], {"w": W, "b": B[:, None]}), (1, 6), (13,)),
    "matmul": (one("MatMul", {"w": W}), VEC, (8, 13, NEWEST)),
    "matmul-vector": (one("MatMul", {"w": W}), (6,), (13,)),
    "matmul-inner": (one("MatMul", {"w": W}), ("N", 1, 6), (13,)),
    "matmul-column": (([("MatMul", ["w", "x"], "y", {})], {"w": W.T.copy()}), ("N", 6, 1), (13,)),
    "matmul-add": (([("MatMul", ["x", "w"], "a", {}), ("Add", ["a", "b"], "y", {})], {"w": W, "b": B}), VEC, (8, 13)),
    "matmul-added": (([("MatMul", ["x", "w"], "a", {}), ("Add", ["b", "a"], "y", {})], {"w": W, "b": B[None]}), VEC, (13,)),
    "matmul-sub": (([("MatMul", ["x", "w"], "a", {}), ("Sub", ["a", "b"], "y", {})], {"w": W, "b": B}), VEC, (13,)),
    "matmul-from": (([("MatMul", ["x", "w"], "a", {}), ("Sub", ["b", "a"], "y", {})], {"w": W, "b": B}), VEC, (13,)),
    "matmul-add-scalar": (([("MatMul", ["x", "w"], "a", {}), ("Add", ["a", "b"], "y", {})], {"w": W, "b": floats(2.0)}), VEC, (13,)),
    "matmul-add-wide": (([("MatMul", ["x", "w"], "a", {}), ("Add", ["a", "b"], "y", {})], {"w": W, "b": numbers(3, 4)}), (6,), (13,)),
    "matmul-twice-read": (
        ([("MatMul", ["x", "w"], "a", {}), ("Add", ["a", "b"], "c", {}), ("Add", ["a", "c"], "y", {})], {"w": W, "b": B}),
        VEC,
        (13,),
    ),
    "conv": (one("Conv", {"w": K, "b": BIAS}), IMG, (8, 11, NEWEST)),
    "conv-no-bias": (one("Conv", {"w": K}), IMG, (13,)),
    "conv-pads": (one("Conv", {"w": K, "b": BIAS}, pads=[1, 0, 2, 3]), ODD, (8, 13)),
    "conv-strides": (one("Conv", {"w": K}, pads=[0, 1, 1, 0], strides=[2, 3]), ODD, (13,)),
    "conv-dilations": (one("Conv", {"w": K}, dilations=[2, 3], kernel_shape=[3, 3]), ODD, (11,)),
    "conv-groups": (one("Conv", {"w": numbers(6, 1, 2, 3)}, group=2), ODD, (13,)),
    "conv-same-upper": (one("Conv", {"w": numbers(4, 2, 2, 4)}, auto_pad="SAME_UPPER"), ODD, (8, 13)),
    "conv-same-lower": (one("Conv", {"w": numbers(4, 2, 2, 4)}, auto_pad="SAME_LOWER"), ODD, (13,)),
    "conv-same-strided": (one("Conv", {"w": K}, auto_pad="SAME_UPPER", strides=[2, 4]), ODD, (13,)),
    "conv-same-lower-strided": (one("Conv", {"w": K}, auto_pad="SAME_LOWER", strides=[3, 2]), IMG, (13,)),
    "conv-valid": (one("Conv", {"w": K}, auto_pad="VALID", strides=[2, 2]), ODD, (13,)),
    "conv-1d": (one("Conv", {"w": numbers(4, 2, 3), "b": BIAS}, pads=[2, 1], strides=[2], dilations=[2]), ROW, (8, 13)),
    "conv-1d-grouped": (one("Conv", {"w": numbers(4, 1, 3)}, group=2), ROW, (13,)),
    "norm": (one("BatchNormalization", NORM), ODD, (9, 13, NEWEST)),
    "norm-epsilon": (one("BatchNormalization", NORM, epsilon=0.5, momentum=0.3), ODD, (8, 14)),
    "norm-spatial": (one("BatchNormalization", NORM, spatial=1), ODD, (8,)),
    "norm-vector": (one("BatchNormalization", NORM), ("N", 2), (13,)),
    "norm-row": (one("BatchNormalization", NORM), ROW, (15,)),
    "relu": (one("Relu"), ODD, (8, 13, NEWEST)),
    "leaky": (one("LeakyRelu"), VEC, (8, 16)),
    "leaky-alpha": (one("LeakyRelu", alpha=0.3), VEC, (8, NEWEST)),
    "prelu": (one("PRelu", {"s": floats([0.2])}), VEC, (8, 9, NEWEST)),
    "clip-attributes": (one("Clip", min=-0.5, max=0.4), VEC, (8, 10)),
    "clip-low-attribute": (one("Clip", min=0.1), VEC, (8,)),
    "clip-no-attributes": (one("Clip"), VEC, (8,)),
    "clip-inputs": (one("Clip", {"a": floats(-0.5), "b": floats(0.4)}), VEC, (11, 13, NEWEST)),
    "clip-high-input": (([("Clip", ["x", "", "b"], "y", {})], {"b": floats(0.4)}), VEC, (11, 13)),
    "clip-low-input": (one("Clip", {"a": floats(0.0)}), VEC, (13,)),
    "clip-largest": (one("Clip", {"a": floats(0.0), "b": np.finfo(np.float32).max}), VEC, (12,)),
    "clip-infinite": (one("Clip", {"a": -INF, "b": floats(0.5)}), VEC, (12,)),
    "max": (one("Max", {"a": floats(0.2)}), VEC, (8, 13)),
    "min": (([("Min", ["a", "x"], "y", {})], {"a": floats([0.2])}), VEC, (13,)),
    "max-pool": (one("MaxPool", kernel_shape=[2, 3]), ODD, (8, 11, NEWEST)),
    "max-pool-pads": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 2]), ODD, (8, 12)),
    "max-pool-ceil": (one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), ODD, (10, NEWEST)),
    "max-pool-ceil-pads": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1), IMG, (11,)),
    "max-pool-dilations": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]), ODD, (10, 13)),
    "max-pool-same": (one("MaxPool", kernel_shape=[2, 4], strides=[2, 1], auto_pad="SAME_UPPER"), ODD, (8, 13)),
    "max-pool-same-lower": (one("MaxPool", kernel_shape=[2, 4], auto_pad="SAME_LOWER"), ODD, (13,)),
    "max-pool-order": (one("MaxPool", kernel_shape=[2, 2], storage_order=1), ODD, (11,)),
    "max-pool-1d": (one("MaxPool", kernel_shape=[3], strides=[2], pads=[1, 0]), ROW, (13,)),
    "average": (one("AveragePool", kernel_shape=[2, 3], strides=[2, 1]), ODD, (8, 11, NEWEST)),
    "average-pads": (one("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 2, 1]), ODD, (8, 13)),
    "average-pads-counted": (one("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 2, 1], count_include_pad=1), ODD, (8, 13)),
    "average-ceil": (one("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), ODD, (11, NEWEST)),
    "average-ceil-pads": (one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1), IMG, (19,)),
    "average-ceil-counted": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=1),
        IMG,
        (19,),
    ),
    "average-same": (one("AveragePool", kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"), ODD, (8, 13)),
    "average-no-gaps": (one("AveragePool", kernel_shape=[2, 2], dilations=[1, 1]), ODD, (19,)),
    "average-1d": (one("AveragePool", kernel_shape=[3], pads=[1, 1], count_include_pad=1), ROW, (13,)),
    "global-average": (one("GlobalAveragePool"), ODD, (8, NEWEST)),
    "global-average-1d": (one("GlobalAveragePool"), ROW, (13,)),
    "global-max": (one("GlobalMaxPool"), ODD, (13,)),
    "mean": (one("ReduceMean", axes=[2, 3]), ODD, (8, 13)),
    "mean-dropped": (one("ReduceMean", axes=[-1, -2], keepdims=0), ODD, (11, 13)),
    "mean-input": (one("ReduceMean", {"a": ints(2, 3)}, keepdims=0), ODD, (18, NEWEST)),
    "mean-noop": (([("ReduceMean", ["x"], "a", {"noop_with_empty_axes": 1}), ("Relu", ["a"], "y", {})], {}), ODD, (18,)),
    "add-constant": (one("Add", {"c": numbers(6)}), VEC, (8, NEWEST)),
    "add-broadcast": (one("Add", {"c": numbers(2, 1, 1)}), ODD, (13,)),
    "add-larger": (one("Add", {"c": numbers(3, 1, 6)}), (1, 1, 1, 6), (13,)),
    "add-in-front": (([("Sub", ["c", "x"], "y", {})], {"c": numbers(1, 2, 1, 9)}), ODD, (8, 13)),
    "sub-constant": (one("Sub", {"c": numbers(6)}), VEC, (13,)),
    "mul-constant": (one("Mul", {"c": numbers(2, 1, 9)}), ODD, (13,)),
    "mul-some-ones": (one("Mul", {"c": floats(1.0, 2.0, 1.0, 1.0, -1.0, 0.5)}), VEC, (13,)),
    "add-some-zeros": (one("Add", {"c": floats(0.0, 2.0, 0.0, 0.0, -1.0, 0.5)}), VEC, (13,)),
    "mul-in-front": (([("Mul", ["c", "x"], "y", {})], {"c": floats(-3.0)}), ODD, (13,)),
    "div-constant": (one("Div", {"c": numbers(6, positive=True)}), VEC, (13,)),
    "neg": (one("Neg"), VEC, (8, 13)),
    "add-values": (([("Relu", ["x"], "a", {}), ("Add", ["a", "x"], "y", {})], {}), VEC, (8, 13)),
    "sub-values": (([("Relu", ["x"], "a", {}), ("Sub", ["x", "a"], "y", {})], {}), VEC, (13,)),
    "add-self": (([("Add", ["x", "x"], "y", {})], {}), VEC, (13,)),
    "add-values-broadcast": (([("GlobalAveragePool", ["x"], "a", {}), ("Sub", ["a", "x"], "y", {})], {}), ODD, (13,)),
    "sum": (([("Relu", ["x"], "a", {}), ("Sum", ["a", "c", "x"], "y", {})], {"c": numbers(6)}), VEC, (8, 13)),
    "concat": (([("Relu", ["x"], "a", {}), ("Concat", ["a", "x", "a"], "y", {"axis": 1})], {}), VEC, (8, 13)),
    "concat-negative": (([("Relu", ["x"], "a", {}), ("Concat", ["a", "x"], "y", {"axis": -2})], {}), ODD, (13,)),
    "concat-vector": (([("Relu", ["x"], "a", {}), ("Concat", ["a", "x"], "y", {"axis": 0})], {}), (5,), (13,)),
    "flatten": (([("Flatten", ["x"], "a", {}), ("MatMul", ["a", "w"], "y", {})], {"w": numbers(126, 3)}), ODD, (8, 13)),
    "flatten-axis": (one("Flatten", axis=2), (1, 3, 4, 2), (13,)),
    "flatten-negative": (one("Flatten", axis=-1), (1, 3, 4, 2), (11,)),
    "reshape": (([("Reshape", ["x", "s"], "y", {})], {"s": ints(-1, 9, 14)}), ODD, (8, 13, NEWEST)),
    "reshape-zeros": (([("Reshape", ["x", "s"], "y", {})], {"s": ints(0, 0, -1)}), ODD, (8, 14)),
    "reshape-one-row": (([("Reshape", ["x", "s"], "a", {}), ("MatMul", ["a", "w"], "y", {})], {"s": ints(1, 6), "w": W}), (6,), (13,)),
    "transpose": (one("Transpose", perm=[0, 2, 3, 1]), ODD, (8, 13)),
    "transpose-default": (one("Transpose"), (1, 3, 4), (13,)),
    "transpose-moves-ones": (one("Transpose", perm=[1, 0, 3, 2]), (1, 3, 4, 2), (13,)),
    "squeeze": (([("GlobalAveragePool", ["x"], "a", {}), ("Squeeze", ["a"], "y", {"axes": [2, 3]})], {}), ODD, (8, 11)),
    "squeeze-input": (([("GlobalAveragePool", ["x"], "a", {}), ("Squeeze", ["a", "s"], "y", {})], {"s": ints(-1, 2)}), ODD, (13,)),
    "squeeze-all": (([("GlobalAveragePool", ["x"], "a", {}), ("Squeeze", ["a"], "y", {})], {}), (1, 2, 3, 4), (13,)),
    "unsqueeze": (([("Unsqueeze", ["x"], "a", {"axes": [1, 3]}), ("Relu", ["a"], "y", {})], {}), VEC, (8, 11)),
    "unsqueeze-input": (([("Unsqueeze", ["x", "s"], "a", {}), ("Relu", ["a"], "y", {})], {"s": ints(0, -1)}), (6,), (13,)),
    "identity": (([("Identity", ["x"], "a", {}), ("Relu", ["a"], "b", {}), ("Identity", ["b"], "y", {})], {}), VEC, (8, 13)),
    "dropout-ratio": (([("Dropout", ["x"], "a", {"ratio": 0.4}), ("Relu", ["a"], "y", {})], {}), VEC, (8, 11)),
    "dropout-inputs": (
        ([("Dropout", ["x", "r", "t"], "a", {"seed": 3}), ("Relu", ["a"], "y", {})], {"r": floats(0.4), "t": np.array(False)}),
        VEC,
        (12, 13),
    ),
    "cast": (([("Cast", ["x"], "a", {"to": 11}), ("Relu", ["a"], "b", {}), ("Cast", ["b"], "y", {"to": 1})], {}), VEC, (13,)),
    "shape-arithmetic": (
        (
            [
                ("Shape", ["x"], "s", {}),
                ("Gather", ["s", "i"], "n", {"axis": 0}),
                ("Unsqueeze", ["n", "zero"], "u", {}),
                ("Concat", ["u", "rest"], "t", {"axis": 0}),
                ("Reshape", ["x", "t"], "y", {}),
            ],
            {"i": np.array(0), "zero": ints(0), "rest": ints(-1)},
        ),
        ODD,
        (13,),
    ),
    "shape-slice": (([("Shape", ["x"], "s", {"start": -1}), ("Reshape", ["x", "s"], "y", {})], {}), (1, 1, 5), (15,)),
    "folded": (
        (
            [
                ("Constant", [], "two", {"value": numpy_helper.from_array(floats(2.0))}),
                ("Transpose", ["v"], "t", {"perm": [1, 0]}),
                ("Mul", ["t", "two"], "w", {}),
                ("ReduceL2", ["w"], "n", {"axes": [0], "keepdims": 1}),
                ("Div", ["w", "n"], "u", {}),
                ("MatMul", ["x", "u"], "y", {}),
            ],
            {"v": W.T.copy()},
        ),
        VEC,
        (8, 13),
    ),
    "constant-forms": (
        (
            [
                ("Constant", [], "a", {"value_float": 0.5}),
                ("Constant", [], "s", {"value_ints": [1, 3, 2]}),
                ("Reshape", ["x", "s"], "b", {}),
                ("Mul", ["b", "a"], "y", {}),
            ],
            {},
        ),
        (1, 6),
        (13,),
    ),
    "unused-nodes": (([("Sigmoid", ["x"], "z", {}), ("Relu", ["x"], "y", {})], {}), VEC, (13,)),
}
CASES = [(name, opset) for name, (_, _, opsets) in GRAPHS.items() for opset in opsets]


def saved(path: Path, built: onnx.ModelProto) -> Path:
    path.write_bytes(built.SerializeToString())
    return path


def compare(path: Path, built: onnx.ModelProto, shape: tuple[Any, ...], kind: type = np.float32) -> float:
    """The largest relative error on random inputs, all samples in one run where the graph takes any number."""
    network = from_onnx(path)
    x = np.random.default_rng(5).normal(size=[4 if n == "N" else n for n in shape]).astype(kind)
    return error_of(network.forward(x.reshape(-1, *network.input_shape)), runtime(built, x))


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_operators_equal_onnxruntime(tmp_path: Path, name: str, opset: int) -> None:
    (nodes, constants), shape, _ = GRAPHS[name]
    if name == "unused-nodes":  # what the output does not depend on may be anything that is known
        nodes = [("Exp", ["x"], "z", {}), nodes[1]]
    built = model(nodes, constants, shape, opset)
    path = saved(tmp_path / "net.onnx", built)
    assert compare(path, built, shape) < 1e-5
    assert not [note for note in from_onnx(path).notes if "not compared" in note]


@pytest.mark.parametrize("attributes", [{}, {"keepdims": 1}, {"keepdims": 0}])
def test_a_mean_has_the_shape_of_onnxruntime(tmp_path: Path, attributes: dict[str, int]) -> None:
    shape = ("N", 2, 3, 3)
    built = model(*one("ReduceMean", axes=[2, 3], **attributes), shape, 13)
    x = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)
    found, wanted = from_onnx(saved(tmp_path / "net.onnx", built)).forward(x), runtime(built, x)
    assert found.shape == wanted.shape == ((2, 2) if attributes == {"keepdims": 0} else (2, 2, 1, 1))
    np.testing.assert_allclose(found, wanted)


def test_same_with_dilations_equals_the_standard(tmp_path: Path) -> None:
    """onnxruntime refuses this one; numbers by hand: kernel (1, 1) with a gap of 2 on a row needs padding 1 and 1."""
    built = model(*one("Conv", {"w": np.ones((1, 1, 1, 2), np.float32)}, auto_pad="SAME_UPPER", dilations=[1, 2]), (1, 1, 1, 4))
    network = from_onnx(saved(tmp_path / "net.onnx", built))
    assert network.forward(np.array([[[[1.0, 2.0, 4.0, 8.0]]]])).reshape(-1).tolist() == [2.0, 5.0, 10.0, 4.0]
    assert "not compared with onnxruntime" in network.notes[0]


class TestLayers:
    """The layers that a graph is read as."""

    def read(self, tmp_path: Path, *given: Any, **more: Any) -> mn.Network:
        return from_onnx(saved(tmp_path / "net.onnx", model(*given, **more)))

    def test_a_bias_that_is_added_belongs_to_the_layer(self, tmp_path: Path) -> None:
        nodes = [("MatMul", ["x", "fc1.weight"], "a", {}), ("Add", ["a", "fc1.bias"], "y", {})]
        network = self.read(tmp_path, nodes, {"fc1.weight": W, "fc1.bias": B}, VEC)
        assert [(node.name, node.layer.label) for node in network.nodes] == [("fc1", "Dense")]
        assert network.parameters == 28

    def test_shared_weights_have_one_origin(self, tmp_path: Path) -> None:
        square = numbers(6, 6)
        nodes = [("MatMul", ["x", "w"], "a", {}), ("Relu", ["a"], "b", {}), ("MatMul", ["b", "w"], "y", {})]
        network = self.read(tmp_path, nodes, {"w": square}, VEC)
        assert [node.origin for node in network.nodes] == ["fc1", "relu1", "fc1"]
        assert network.parameters == 36

    def test_axes_of_length_one_make_no_layer(self, tmp_path: Path) -> None:
        nodes = [
            ("Unsqueeze", ["x", "s"], "a", {}),
            ("Transpose", ["a"], "b", {"perm": [1, 0, 2]}),
            ("Squeeze", ["b", "s"], "c", {}),
            ("Relu", ["c"], "y", {}),
        ]
        network = self.read(tmp_path, nodes, {"s": ints(1)}, (1, 6))
        assert [node.layer.label for node in network.nodes] == ["ReLU"]

    def test_a_layer_read_for_its_shape_alone_is_left_out(self, tmp_path: Path) -> None:
        nodes = [("GlobalAveragePool", ["x"], "a", {}), ("Shape", ["a"], "s", {}), ("Gather", ["s", "i"], "g", {})]
        nodes += [("Concat", ["g", "rest"], "t", {"axis": 0}), ("Reshape", ["x", "t"], "y", {})]
        network = self.read(tmp_path, nodes, {"i": ints(0, 1), "rest": ints(-1)}, ODD)
        assert [node.layer.label for node in network.nodes] == ["Reshape"]

    def test_subtracting_zero_makes_no_layer(self, tmp_path: Path) -> None:
        nodes = [("Sub", ["x", "zero"], "a", {}), ("Relu", ["a"], "y", {})]
        assert len(self.read(tmp_path, nodes, {"zero": np.zeros((1, 6), np.float32)}, VEC)) == 1

    @pytest.mark.parametrize(("shape", "sample"), [((1, 784, 1), (784, 1)), ((1, 1, 1, 5), (1, 1, 5)), (("N", 5), (5,)), ((5,), (5,))])
    def test_sample_axis(self, tmp_path: Path, shape: tuple[Any, ...], sample: tuple[int, ...]) -> None:
        network = self.read(tmp_path, *one("Relu"), shape)
        assert network.input_shape == sample
        assert not network.notes

    def test_some_write_0_for_any_number_of_samples(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, *one("Relu"), (0, 5)).input_shape == (5,)

    def test_no_sample_axis_is_noted(self, tmp_path: Path) -> None:
        network = self.read(tmp_path, *one("Relu"), (3, 4))
        assert network.input_shape == (3, 4)
        assert "has no sample axis" in network.notes[0]

    def test_nothing_but_an_identity(self, tmp_path: Path) -> None:
        network = self.read(tmp_path, *one("Identity"), VEC)
        assert network.forward(np.arange(6.0)[None]).tolist() == [[0, 1, 2, 3, 4, 5]]

    @pytest.mark.parametrize("listed", [False, True])
    def test_initialisers_may_be_inputs_too(self, tmp_path: Path, listed: bool) -> None:
        built = model(*one("Gemm", {"w": W, "b": B}), VEC, 13, listed=listed)
        assert compare(saved(tmp_path / "net.onnx", built), built, VEC) < 1e-5

    def test_weights_of_double_precision_are_kept(self, tmp_path: Path) -> None:
        weight = np.random.default_rng(0).normal(size=(6, 4))
        nodes = [("MatMul", ["x", "w"], "a", {}), ("Relu", ["a"], "y", {})]
        built = model(nodes, {"w": weight}, VEC, kind=TensorProto.DOUBLE)
        path = saved(tmp_path / "net.onnx", built)
        assert compare(path, built, VEC, np.float64) < 1e-14
        assert np.array_equal(from_onnx(path)["fc1"].layer.weights()["weight"].numpy(), weight.T)

    def test_half_precision(self, tmp_path: Path) -> None:
        built = model(*one("MatMul", {"w": W.astype(np.float16)}), VEC, kind=TensorProto.FLOAT16)
        assert compare(saved(tmp_path / "net.onnx", built), built, VEC, np.float16) < 1e-2


@pytest.mark.parametrize(("to", "noted"), [(1, False), (11, False), (10, True)])
def test_a_cast_that_rounds_is_noted(tmp_path: Path, to: int, noted: bool) -> None:
    nodes = [("Softmax", ["x"], "a", {"axis": 1}), ("Cast", ["a"], "b", {"to": to}), ("Cast", ["b"], "y", {"to": 1})]
    network = from_onnx(saved(tmp_path / "net.onnx", model(nodes, {}, VEC)))
    assert any("casts to numbers of 16 bits (`Cast_1`)" in note for note in network.notes) is noted
    assert network.softmax is not None


SOFTMAX = [
    ("Softmax", {}, 8, VEC, 1),
    ("Softmax", {"axis": 1}, 13, VEC, 1),
    ("Softmax", {}, 13, VEC, 1),
    ("LogSoftmax", {"axis": -1}, NEWEST, VEC, 1),
    ("Softmax", {"axis": 1}, 13, ODD, 1),
    ("Softmax", {"axis": 1}, 11, ODD, (1, 2, 3)),
]


@pytest.mark.parametrize(("op", "given", "opset", "shape", "axes"), SOFTMAX)
def test_a_final_softmax_is_taken_off(
    tmp_path: Path, op: str, given: dict[str, Any], opset: int, shape: tuple[Any, ...], axes: Any
) -> None:
    nodes = [("Mul", ["x", "c"], "a", {}), (op, ["a"], "b", given), ("Identity", ["b"], "y", {})]
    built = model(nodes, {"c": floats(2.0)}, shape, opset)
    network = from_onnx(saved(tmp_path / "net.onnx", built))
    assert [node.layer.label for node in network.nodes] == ["Scale"]
    assert "softmax was taken off" in network.notes[0]
    assert "not compared" not in "".join(network.notes)
    x = np.random.default_rng(0).normal(size=[3 if n == "N" else n for n in shape])
    logits = network.forward(x)
    wanted = np.exp(logits) / np.exp(logits).sum(axes, keepdims=True)
    wanted = np.log(wanted) if op == "LogSoftmax" else wanted
    assert error_of(runtime(built, x.astype(np.float32)), wanted) < 1e-5
    assert np.abs(network.outputs(x) - wanted).max() < 1e-12
    assert network.softmax is not None
    assert (network.softmax.kind, network.without_softmax().softmax) == ("log_softmax" if op == "LogSoftmax" else "softmax", None)
    assert tuple(axis + 1 for axis in network.softmax.axes) == (axes if isinstance(axes, tuple) else (axes,))


@pytest.mark.parametrize("suffix", [".onnx", ".onnx.gz", ".ONNX"])
def test_files(tmp_path: Path, suffix: str) -> None:
    data = model(*one("Gemm", {"w": W}), VEC).SerializeToString()
    path = tmp_path / f"net{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    for network in (mn.read(path), mn.from_onnx(path)):
        assert np.allclose(network.forward(np.eye(6)), W)
    assert np.allclose(open_session(path).run(np.eye(6)).reshape(6, 4), W)


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    built = model(*one("Gemm", {"w": numbers(6, 300), "b": numbers(300)}), VEC)
    onnx.save(onnx.ModelProto.FromString(built.SerializeToString()), tmp_path / "net.onnx", save_as_external_data=True, location="net.data")
    assert (tmp_path / "net.data").stat().st_size >= 7200
    assert compare(tmp_path / "net.onnx", built, VEC) < 1e-5


def test_without_the_package_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "net.onnx", model(*one("Relu"), VEC))
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"needs the package onnx, which is not installed: pip install mipnet\[onnx\]"):
        mn.read(path)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the files of VNN-COMP")
@pytest.mark.parametrize("folder", ["acasxu", "mnist_fc"])
def test_networks_of_vnncomp_equal_onnxruntime(folder: str) -> None:
    files = sorted((DATA / folder / "onnx").iterdir())
    assert len(files) == {"acasxu": 45, "mnist_fc": 3}[folder]
    for path in files:
        network = mn.read(path)
        shape = (1, 1, 1, 5) if folder == "acasxu" else (1, 784, 1)
        assert network.input_shape == shape[1:]
        for x in np.random.default_rng(0).uniform(-0.5, 1, (3, *shape)):
            assert error_of(network.forward(x), runtime(path, x.astype(np.float32))) < 1e-5
        labels = [node.layer.label for node in network.nodes]
        hidden = 6 if folder == "acasxu" else int(path.stem[-1])
        assert labels == ["Reshape", *["Dense", "ReLU"] * hidden, "Dense"]
