"""The table of operators as rows: with the readers of torch and ONNX loaded, which fill it."""

from __future__ import annotations

from mipnet.readers import onnx_activations, onnx_ops, onnx_shapes, onnx_windows  # noqa: F401 - they register their names
from mipnet.readers import torch as torch_reader  # noqa: F401
from mipnet.readers.operators.table import READ_OPERATORS, OperatorRow


def operator_rows() -> list[OperatorRow]:
    """Return one row per operator, by name."""
    rows = []
    for _, each in sorted(READ_OPERATORS.items()):
        torch_names = sorted({name.removeprefix("aten.").split(".")[0].strip("_") for name in each.torch})
        exact = "exact" if each.exact else "relaxed"
        rows.append(OperatorRow(each.about, ", ".join(torch_names), ", ".join(sorted(each.onnx)), each.layers, exact))
    return rows
