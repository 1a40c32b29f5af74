"""Small questions in files: networks of ONNX whose outputs can be worked out by hand, and properties of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tests.readers.onnx_graphs import model, numbers

UP, DOWN = np.array([[1, -1], [-1, 1]], np.float32), np.array([[1, 1], [1, -1]], np.float32)
"""``relu(x @ UP) @ DOWN`` is ``(|x_0 - x_1|, x_0 - x_1)``."""


def distance(path: Path, last: str = "") -> Path:
    """A network that computes |x_0 - x_1| and x_0 - x_1, followed by one more operator if it is named."""
    nodes = [("MatMul", ["x", "a"], "z", {}), ("Relu", ["z"], "h", {}), ("MatMul", ["h", "b"], "y" if not last else "v", {})]
    nodes += [(last, ["v"], "y", {"axis": 1})] if last else []
    path.write_bytes(model(nodes, {"a": UP, "b": DOWN}, ("N", 2)).SerializeToString())
    return path


def hard(path: Path, inputs: int = 30, width: int = 60) -> Path:
    """A random network with three hidden layers, which takes long to decide."""
    sizes, nodes, constants, last = (inputs, width, width, width, 1), [], {}, "x"
    for k in range(4):
        constants[f"w{k}"] = numbers(sizes[k], sizes[k + 1], seed=k) * np.float32(2 / np.sqrt(sizes[k]))
        nodes.append(("MatMul", [last, f"w{k}"], "y" if k == 3 else f"z{k}", {}))
        nodes += [("Relu", [f"z{k}"], f"h{k}", {})] if k < 3 else []
        last = f"h{k}"
    path.write_bytes(model(nodes, constants, (1, inputs)).SerializeToString())
    return path


def asked(path: Path, *asserted: str, inputs: int = 2, outputs: int = 2, low: float = 0, high: float = 1) -> Path:
    """A property over a box with the same bounds for every input."""
    lines = [f"(declare-const {letter}_{k} Real)" for letter, count in (("X", inputs), ("Y", outputs)) for k in range(count)]
    lines += [f"(assert ({sign} X_{k} {end!r}))" for k in range(inputs) for sign, end in ((">=", low), ("<=", high))]
    path.write_text("\n".join([*lines, *(f"(assert {each})" for each in asserted)]) + "\n")
    return path


def listed(path: Path, *lines: tuple[str, str, float]) -> Path:
    """An instances file."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    return path


def point_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The inputs and outputs of a counterexample, parsed as by the checker of VNN-COMP."""
    word, _, rest = text.partition("\n")
    assert word == "sat"
    body = rest.replace("\n", " ").strip()
    assert (body[0], body[-1]) == ("(", ")")
    found: dict[str, list[float]] = {"X": [], "Y": []}
    for part in filter(None, (each.strip() for each in body[1:-1].split(")"))):
        letter, place, value = re.fullmatch(r"\(([XY])_(\d+) (\S+)", part).groups()  # type: ignore[union-attr]
        assert int(place) == len(found[letter])
        found[letter].append(float(value))
    return np.array(found["X"]), np.array(found["Y"])


def outputs_of(network: Path, x: np.ndarray) -> np.ndarray:
    """The outputs of onnxruntime for one input."""
    session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x[None].astype(np.float32)})[0], np.float64)[0]
