"""Constant folding: ONNX operators whose inputs are all constants, evaluated by the reference implementation of the standard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipnet.limits.memory import check_memory
from mipnet.readers.conversion import one_line

if TYPE_CHECKING:
    from onnx import NodeProto

FOLDED_OPERATORS = (
    "Abs Add And Cast CastLike Ceil Concat Constant ConstantOfShape Div Equal Exp Expand Flatten Floor Gather"
    " GatherElements GatherND Gemm Greater GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Min Mod Mul Neg Not Or Pow Range"
    " Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape Round Shape Sign Size"
    " Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where Xor"
)
"""Operators that are evaluated on constants: deterministic functions of their inputs."""

FOLDED_ELEMENTS_MAX = 2**27
"""Largest number of elements of a folded constant (1 GiB in float64)."""


FOLDED_ELEMENT_BYTES = 24
"""Bytes per element of a folded constant: itself, and temporary copies of it."""


class Unfoldable(Exception):
    """The constant cannot be computed; the message says why."""


def fold(node: NodeProto, attributes: dict[str, Any], inputs: list[NDArray[Any] | None], opset: int) -> list[NDArray[Any]]:
    """Return the outputs of one operator; raises `Unfoldable` if it is not in `FOLDED_OPERATORS`, or if it fails."""
    if node.op_type not in FOLDED_OPERATORS.split():
        raise Unfoldable("mipnet does not evaluate this operator")
    elements = _size(node.op_type, attributes, inputs)
    if elements > FOLDED_ELEMENTS_MAX:
        raise Unfoldable(f"its result would have more than {FOLDED_ELEMENTS_MAX:,} elements")
    what = f"the constant that {node.op_type} `{node.name or next(iter(node.output), '')}` computes ({elements:,.0f} elements)"
    check_memory(what, FOLDED_ELEMENT_BYTES * elements, "give a smaller network")
    if node.op_type in ("Div", "Mod") and any(each is not None and each.dtype.kind in "iu" and (each == 0).any() for each in inputs[1:]):
        raise Unfoldable("it divides whole numbers by 0")
    if node.op_type == "Cast":
        return [_cast(inputs, int(attributes.get("to", 0)))]
    try:
        with np.errstate(all="ignore"):
            found = run_operator(node, inputs, opset)
    except Exception as error:
        raise Unfoldable(f"the operator fails ({one_line(error)})") from None
    if not all(isinstance(each, np.ndarray) for each in found):
        raise Unfoldable("its result is no tensor")
    return found


def run_operator(node: NodeProto, inputs: list[NDArray[Any] | None], opset: int) -> list[Any]:
    """Return the outputs of an operator, computed by the reference implementation of the standard."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    given = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    before, after = ([helper.make_empty_tensor_value_info(name) for name in names if name] for names in (given, node.output))
    model = helper.make_model(helper.make_graph([node], "constant", before, after), opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(each) if np.isscalar(each) else each for each in ReferenceEvaluator(model).run(None, given)]


def _cast(inputs: list[NDArray[Any] | None], to: int) -> NDArray[Any]:
    """Return the result of a cast; floating-point numbers stay in float64, whatever their size in the file."""
    from onnx import helper

    try:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    except KeyError:
        raise Unfoldable(f"{to} is not a type of ONNX") from None
    (given,) = inputs
    if given is None or kind.kind not in "fiub":
        raise Unfoldable(f"it casts to {kind}, which mipnet does not read")
    with np.errstate(all="ignore"):
        return given.astype(np.float64 if kind.kind == "f" else kind)


def _size(kind: str, attributes: dict[str, Any], inputs: list[NDArray[Any] | None]) -> float:
    """Return a lower bound of the number of elements of the result, for operators that can make many elements of few."""
    given = [each for each in inputs if each is not None]
    try:
        if kind == "ConstantOfShape":
            return float(math.prod(int(n) for n in given[0].reshape(-1)))
        if kind == "Tile":
            return float(given[0].size * math.prod(int(n) for n in given[1].reshape(-1)))
        if kind == "Range":
            return abs(float(given[1]) - float(given[0])) / abs(float(given[2]))
        if kind == "Expand":
            return float(math.prod(np.broadcast_shapes(given[0].shape, tuple(int(n) for n in given[1].reshape(-1)))))
        if kind in ("Gather", "GatherND", "GatherElements"):
            return float(given[1].size * given[0].size / max(1, given[0].shape[int(attributes.get("axis", 0))] if kind == "Gather" else 1))
        if kind in ("MatMul", "Gemm"):
            return float(given[0].size * given[1].size / max(1, min(given[0].shape[-1], given[1].shape[-1])) ** 2)
        return float(math.prod(np.broadcast_shapes(*(each.shape for each in given)))) if len(given) > 1 else 0.0
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
        return 0.0  # the operator itself will say what is wrong
