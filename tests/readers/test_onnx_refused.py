"""ONNX files that are malformed, hostile or unsupported: each raises an error of one line, in Python and on the command line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.errors import InputError, NetworkError, UnsupportedError
from mipnet.readers import file_bytes
from tests.readers.onnx_graphs import NEWEST, model, numbers

W, K = numbers(6, 4), numbers(4, 2, 3, 3)
VEC, IMG = ("N", 6), ("N", 2, 8, 8)
Built = onnx.ModelProto | bytes


def one(op: str, constants: dict[str, np.ndarray] | None = None, shape: Any = VEC, opset: int = 13, **given: Any) -> onnx.ModelProto:
    return model([(op, ["x", *(constants or {})], "y", given)], constants or {}, shape, opset)


def good() -> onnx.ModelProto:
    return one("Gemm", {"w": W})


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    built = good()
    change(built)
    return built


def external(**given: str) -> onnx.ModelProto:
    """The valid model with weights that refer to a file."""
    built = good()
    tensor = built.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in given.items():
        tensor.external_data.add(key=key, value=value)
    return built


def wide(op: str, constants: dict[str, np.ndarray], *inputs: str) -> onnx.ModelProto:
    """Constants that would need too much memory, added to the input."""
    return model([(op, [*inputs], "big", {}), ("Add", ["x", "big"], "y", {})], constants, VEC)


MALFORMED: dict[str, tuple[Callable[[], Built], type[InputError], str]] = {
    "empty": (lambda: b"", NetworkError, "holds no graph of ONNX"),
    "not protobuf": (lambda: b"\x89PNG\r\n\x1a\n" + b"x" * 100, NetworkError, "is no ONNX file|holds no graph"),
    "text": (lambda: b"mipnet: 1\n", NetworkError, "is no ONNX file, or it is cut off|holds no graph"),
    "truncated": (lambda: good().SerializeToString()[:-40], NetworkError, "is no ONNX file, or it is cut off"),
    "truncated gzip": (lambda: gzip.compress(good().SerializeToString())[:-20], NetworkError, "cannot be read"),
    "no opset": (lambda: changed(lambda m: m.ClearField("opset_import")), UnsupportedError, "version none of ONNX's operators"),
    "old opset": (lambda: changed(lambda m: setattr(m.opset_import[0], "version", 7)), UnsupportedError, "version 7 .*from 8 to"),
    "future opset": (lambda: changed(lambda m: setattr(m.opset_import[0], "version", 999)), UnsupportedError, "version 999 "),
    "old opset behind": (
        lambda: changed(lambda m: m.opset_import.add(domain="ai.onnx", version=7)),
        UnsupportedError,
        "version 7 .*from 8 to",
    ),
    "unknown operator": (
        lambda: one("Sigmoid"),
        UnsupportedError,
        r"operator `Sigmoid` \(node `Sigmoid_0`\).*replace it by `nn.Hardsigmoid` or ReLU",
    ),
    "invented operator": (lambda: changed(lambda m: setattr(m.graph.node[0], "op_type", "Nonsense")), UnsupportedError, "`Nonsense`"),
    "custom domain": (lambda: changed(lambda m: setattr(m.graph.node[0], "domain", "com.me")), UnsupportedError, "`com.me::Gemm`"),
    "random": (
        lambda: model([("RandomNormalLike", ["x"], "y", {})], {}, VEC),
        UnsupportedError,
        "operator `RandomNormalLike`",
    ),
    "missing initialiser": (lambda: changed(lambda m: m.graph.ClearField("initializer")), NetworkError, "not valid ONNX.*|input 'w'"),
    "undefined input": (
        lambda: changed(lambda m: m.graph.node[0].input.__setitem__(0, "nowhere")),
        NetworkError,
        "not valid ONNX .*nowhere",
    ),
    "cycle": (
        lambda: model([("Add", ["x", "b"], "a", {}), ("Relu", ["a"], "b", {}), ("Relu", ["b"], "y", {})], {}, VEC),
        NetworkError,
        "not valid ONNX .*sorted",
    ),
    "output of nothing": (
        lambda: changed(lambda m: setattr(m.graph.output[0], "name", "z")),
        InputError,
        "not valid ONNX|does not depend on the input",
    ),
    "NaN weights": (lambda: one("Gemm", {"w": np.full((6, 4), np.nan, np.float32)}), NetworkError, "operator `Gemm`.*24 NaN"),
    "infinite weights": (lambda: one("Add", {"c": np.full(6, np.inf, np.float32)}), NetworkError, "a summand.*NaN or infinite"),
    "wrong shapes": (lambda: one("Gemm", {"w": numbers(5, 4)}), UnsupportedError, r"\[1, 6\] and its constant \[5, 4\]"),
    "wrong bias": (lambda: one("Gemm", {"w": W, "b": numbers(5)}), UnsupportedError, r"its shift has shape \[5\]"),
    "cut weights": (
        lambda: changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234")),
        NetworkError,
        "not valid ONNX|initialiser `w` cannot be read",
    ),
    "dynamic rows": (lambda: one("Relu", shape=("N", 2, "rows", 8)), UnsupportedError, r"shape \['N', 2, 'rows', 8\]; expected fixed"),
    "no shape": (
        lambda: changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        UnsupportedError,
        "`x` has no shape; export",
    ),
    "scalar input": (lambda: one("Relu", shape=()), UnsupportedError, "expected fixed sizes"),
    "vast input": (lambda: one("Relu", shape=(1, 2**40)), UnsupportedError, "expected fixed sizes"),
    "integer weights": (
        lambda: model([("Add", ["x", "c"], "y", {})], {"c": np.arange(6)}, VEC),
        UnsupportedError,
        "a summand is of type int64",
    ),
    "integer input": (
        lambda: model([("Relu", ["x"], "y", {})], {}, VEC, kind=TensorProto.INT32),
        UnsupportedError,
        "`x` is of type INT32",
    ),
    "two outputs": (
        lambda: model([("Relu", ["x"], "y", {}), ("Neg", ["x"], "z", {})], {}, VEC, out=("y", "z")),
        UnsupportedError,
        "1 inputs and 2 outputs .`x`, `y`, `z`.",
    ),
    "two inputs": (
        lambda: changed(lambda m: m.graph.input.add().CopyFrom(helper.make_tensor_value_info("u", 1, [1, 6]))),
        UnsupportedError,
        "2 inputs and 1 outputs",
    ),
    "no input": (lambda: changed(lambda m: m.graph.ClearField("input")), InputError, "0 inputs|not valid"),
    "constant output": (
        lambda: model([("Neg", ["c"], "y", {}), ("Relu", ["x"], "z", {})], {"c": W}, VEC),
        UnsupportedError,
        "output `y` does not depend on the input",
    ),
    "unknown attribute": (
        lambda: changed(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("gamma", 2.0))),
        NetworkError,
        "not valid ONNX .*gamma",
    ),
    "attribute that is not read": (
        lambda: model([("Relu", ["x"], "a", {}), ("Flatten", ["a"], "y", {"axis": 7})], {}, VEC),
        UnsupportedError,
        "operator `Flatten`.*axis is 7",
    ),
    "attribute of a wrong type": (
        lambda: changed(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("alpha", "much"))),
        NetworkError,
        "not valid ONNX",
    ),
    "no second operand": (lambda: model([("Max", ["x", ""], "y", {})], {}, VEC), NetworkError, "operator `Max`.*lacks its input 2"),
    "no operand where nobody looks": (
        lambda: model([("Max", ["x", ""], "z", {}), ("Relu", ["x"], "y", {})], {}, VEC),
        NetworkError,
        "operator `Max`.*lacks its input 2",
    ),
    "repeated name": (
        lambda: model([("Relu", ["x"], "y", {}), ("Neg", ["x"], "y", {})], {}, VEC),
        NetworkError,
        "not valid ONNX",
    ),
    "sparse weights": (
        lambda: changed(lambda m: m.graph.sparse_initializer.add()),
        UnsupportedError,
        "sparse initialisers",
    ),
    "product of values": (
        lambda: model([("Relu", ["x"], "a", {}), ("Mul", ["x", "a"], "y", {})], {}, VEC),
        UnsupportedError,
        "operator `Mul`.*not linear",
    ),
    "matrices of values": (lambda: model([("MatMul", ["x", "x"], "y", {})], {}, (1, 1)), UnsupportedError, "depends on the network input"),
    "quotient": (
        lambda: model([("Div", ["c", "x"], "y", {})], {"c": numbers(6)}, VEC),
        UnsupportedError,
        "the divisor depends on the network input",
    ),
    "division by 0": (lambda: one("Div", {"c": np.zeros(6, np.float32)}), UnsupportedError, "divides by 0"),
    "constant of several samples": (lambda: one("Add", {"c": numbers(3, 6)}), UnsupportedError, "differs from sample to sample"),
    "constant of another length": (lambda: one("Add", {"c": numbers(5)}), UnsupportedError, "do not fit together"),
    "concatenated samples": (
        lambda: model([("Concat", ["x", "x"], "y", {"axis": 0})], {}, VEC),
        UnsupportedError,
        "along the sample axis",
    ),
    "fixed number of samples": (lambda: one("Gemm", {"w": W}, (3, 6)), UnsupportedError, "export for one sample"),
    "softmax inside": (
        lambda: model([("Softmax", ["x"], "a", {}), ("Relu", ["a"], "y", {})], {}, VEC),
        UnsupportedError,
        "operator `Softmax`.*as the last operation",
    ),
    "softmax of samples": (lambda: one("Softmax", axis=0), UnsupportedError, "operator `Softmax`.*over axis 0"),
    "softmax cast to integers": (
        lambda: model([("Softmax", ["x"], "a", {}), ("Cast", ["a"], "y", {"to": 7})], {}, VEC),
        UnsupportedError,
        "operator `Softmax`",
    ),
    "cast to integers": (lambda: one("Cast", to=7), UnsupportedError, "casts to type 7"),
    "training": (
        lambda: model([("Dropout", ["x", "r", "t"], "y", {})], {"r": np.float32(0.5), "t": np.array(True)}, VEC),
        UnsupportedError,
        "drops at random",
    ),
    "batch statistics": (
        lambda: one("BatchNormalization", {k: np.ones(2, np.float32) for k in "abcd"}, IMG, 14, training_mode=1),
        UnsupportedError,
        "the batch's own statistics",
    ),
    "negative variance": (
        lambda: one("BatchNormalization", {k: np.full(2, -1.0, np.float32) for k in "abcd"}, IMG, 14),
        UnsupportedError,
        "smallest variance is -1.0",
    ),
    "negative pads": (lambda: one("Conv", {"w": K}, IMG, pads=[-1, 0, 0, 0]), UnsupportedError, r"pads are \[-1, 0, 0, 0\]"),
    "pads twice": (lambda: one("Conv", {"w": K}, IMG, pads=[1, 1, 1, 1], auto_pad="SAME_UPPER"), UnsupportedError, "auto_pad is SAME"),
    "invented padding": (lambda: one("Conv", {"w": K}, IMG, auto_pad="SOME"), UnsupportedError, "auto_pad is SOME"),
    "kernel of another shape": (lambda: one("Conv", {"w": K}, IMG, kernel_shape=[5, 5]), UnsupportedError, r"kernel_shape is \[5, 5\]"),
    "groups that do not fit": (lambda: one("Conv", {"w": K}, IMG, group=3), UnsupportedError, "do not divide into 3 groups"),
    "wrong channels": (lambda: one("Conv", {"w": numbers(4, 3, 3, 3)}, IMG), UnsupportedError, "operator `Conv`.*expected .3, rows"),
    "kernel too large": (lambda: one("Conv", {"w": numbers(1, 2, 9, 9)}, IMG), UnsupportedError, "does not fit an input"),
    "average with gaps": (
        lambda: one("AveragePool", {}, IMG, 19, kernel_shape=[2, 2], dilations=[2, 2]),
        UnsupportedError,
        r"dilations are \[2, 2\]",
    ),
    "overflow": (lambda: one("Mul", {"c": np.full(6, 3e38, np.float32)}), NetworkError, "gives NaN or infinite outputs"),
    "flag of 2": (lambda: one("MaxPool", {}, IMG, kernel_shape=[2, 2], ceil_mode=2), UnsupportedError, "ceil_mode is 2; expected 0 or 1"),
    "pads as large as the kernel": (
        lambda: one("AveragePool", {}, IMG, kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        UnsupportedError,
        "as large",
    ),
    "padding with gaps": (
        lambda: one("MaxPool", {}, IMG, kernel_shape=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER"),
        UnsupportedError,
        "runtimes read in different ways",
    ),
    "declared in another shape": (
        lambda: changed(lambda m: m.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", 1, [6, 5]))),
        NetworkError,
        r"`w` has shape \[6, 4\] and is declared with \[6, 5\]",
    ),
    "whole numbers divided by 0": (
        lambda: model([("Div", ["a", "b"], "s", {}), ("Reshape", ["x", "s"], "y", {})], {"a": np.array([6]), "b": np.array([0])}, (6,)),
        UnsupportedError,
        "divides whole numbers by 0",
    ),
    "indices of a pool": (
        lambda: changed(
            lambda m: m.graph.CopyFrom(
                helper.make_graph(
                    [helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), helper.make_node("Cast", ["i"], ["z"], to=1)],
                    "g",
                    [helper.make_tensor_value_info("x", 1, [1, 2, 8, 8])],
                    [helper.make_tensor_value_info("z", 1, [1, 2, 7, 7])],
                )
            )
        ),
        UnsupportedError,
        "its input `i` is not a value that mipnet reads",
    ),
    "mean of all": (lambda: one("ReduceMean", {}, IMG), UnsupportedError, "over axes all"),
    "empty range": (lambda: one("Clip", {"a": np.float32(1), "b": np.float32(0)}), UnsupportedError, r"clips to \[1.0, 0.0\]"),
    "range at infinity": (lambda: one("Clip", {"a": np.float32(np.inf)}), UnsupportedError, r"clips to \[inf, inf\]"),
    "shape that does not fit": (lambda: one("Reshape", {"s": np.array([5])}), UnsupportedError, "do not fill shape"),
    "shape from the input": (
        lambda: model([("Cast", ["x"], "s", {"to": 7}), ("Reshape", ["x", "s"], "y", {})], {}, (6,)),
        UnsupportedError,
        "casts to type 7",
    ),
    "squeezed too much": (lambda: one("Squeeze", {"s": np.array([1])}), UnsupportedError, "expected axes of length 1"),
    "vast constant": (
        lambda: wide("ConstantOfShape", {"n": np.array([10**6, 10**6])}, "n"),
        UnsupportedError,
        "more than 134,217,728 elements",
    ),
    "vast tile": (lambda: wide("Tile", {"c": numbers(6), "n": np.array([10**12])}, "c", "n"), UnsupportedError, "more than 134,217,728"),
    "vast range": (
        lambda: wide("Range", {"a": np.int64(0), "b": np.int64(10**15), "c": np.int64(1)}, "a", "b", "c"),
        UnsupportedError,
        "more than 134,217,728 elements",
    ),
    "vast outer sum": (
        lambda: wide("Sub", {"a": np.ones((60000, 1), np.float32), "b": np.ones((1, 60000), np.float32)}, "a", "b"),
        UnsupportedError,
        "more than 134,217,728 elements",
    ),
    "constants that fail": (
        lambda: wide("Gather", {"a": numbers(3), "i": np.array([7])}, "a", "i"),
        UnsupportedError,
        "operator `Gather`.*its inputs are constants, and the operator fails",
    ),
    "weights outside": (lambda: external(location="../../etc/passwd"), UnsupportedError, "mipnet reads files in the folder"),
    "weights at a root": (lambda: external(location="/etc/passwd"), UnsupportedError, "mipnet reads files in the folder"),
    "weights behind a link": (lambda: external(location="link/passwd"), UnsupportedError, "mipnet reads files in the folder"),
    "weights nowhere": (lambda: external(location="net.data"), NetworkError, "`net.data`, which is not there"),
    "weights without a place": (lambda: external(), UnsupportedError, "the weights `w` lie in"),
    "weights beyond the end": (
        lambda: external(location="short.data", offset="0", length="100"),
        NetworkError,
        "should be 100 bytes from 0 on in `short.data`, which has 5",
    ),
    "weights of no number": (lambda: external(location="short.data", offset="x"), NetworkError, "from x on in `short.data`"),
    "huge weights": (lambda: external(location="short.data", offset="-5", length=str(2**62)), NetworkError, "from -5 on"),
}


def written(folder: Path, built: Built) -> Path:
    (folder / "short.data").write_bytes(b"12345")
    (folder / "link").symlink_to("/etc")
    path = folder / "net.onnx"
    path.write_bytes(built if isinstance(built, bytes) else built.SerializeToString())
    return path


def test_there_are_many() -> None:
    assert len(MALFORMED) >= 20


@pytest.mark.parametrize("name", MALFORMED)
def test_one_clear_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    build, kind, message = MALFORMED[name]
    path = written(tmp_path, build())
    with pytest.raises(kind, match=message) as caught:
        mn.read(path)
    assert "\n" not in str(caught.value)
    assert "net.onnx" in str(caught.value)
    assert main(["inspect", str(path)]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == f"error: {caught.value}\n"


def test_the_parts_of_these_files_are_read_when_they_are_right(tmp_path: Path) -> None:
    assert mn.read(written(tmp_path, good())).output_shape == (4,)


@pytest.mark.parametrize("cut", range(0, 200, 9))
def test_files_cut_anywhere(tmp_path: Path, cut: int) -> None:
    data = good().SerializeToString()
    path = written(tmp_path, data[: cut * len(data) // 200])
    with pytest.raises(InputError) as caught:
        mn.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_changed_bytes_end_in_a_network_or_in_one_line(tmp_path: Path, seed: int) -> None:
    """Fuzzing: after a change of three bytes the result is a network that onnxruntime confirms, or an error of one line."""
    g = np.random.default_rng(seed)
    nodes = [("Conv", ["x", "k"], "a", {"pads": [1, 0, 0, 1]}), ("Relu", ["a"], "b", {}), ("Flatten", ["b"], "c", {})]
    built = model([*nodes, ("Gemm", ["c", "w"], "y", {"alpha": 0.5})], {"k": K, "w": numbers(196, 2)}, IMG, NEWEST)
    data = bytearray(built.SerializeToString())
    structure = [i for i in range(len(data)) if i < 200 or i > len(data) - 120]  # there are weights between them
    for i in g.choice(structure, 3):
        data[i] = g.integers(256)
    path = written(tmp_path, bytes(data))
    try:
        network = mn.read(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(network.forward(np.zeros((1, *network.input_shape)))).all()


def test_a_packed_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr(file_bytes, "UNPACKED_BYTES_MAX", 10**5)
    with pytest.raises(NetworkError, match="holds more than 100,000 bytes when unpacked"):
        mn.read(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no file"):
        mn.read(tmp_path / "none.onnx")


def test_a_network_that_onnxruntime_contradicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong reader (here it uses the padding of the other side) is found by the comparison."""
    from mipnet.readers import onnx_windows

    right = onnx_windows._sides
    monkeypatch.setattr(onnx_windows, "_sides", lambda *given: right(*given)[1::-1] + right(*given)[2:])
    with pytest.raises(NetworkError, match="is not what onnxruntime computes"):
        mn.read(written(tmp_path, one("Conv", {"w": K}, IMG, pads=[2, 0, 0, 0])))


def test_sparse_tensors_in_constants(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "v")
    indices = numpy_helper.from_array(np.array([0, 3]), "i")
    sparse = helper.make_sparse_tensor(values, indices, [6])
    nodes = [("Constant", [], "c", {"sparse_value": sparse}), ("Add", ["x", "c"], "y", {})]
    with pytest.raises(UnsupportedError, match="operator `Constant`"):
        mn.read(written(tmp_path, model(nodes, {}, VEC)))
