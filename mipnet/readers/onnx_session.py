"""An ONNX graph as onnxruntime runs it: on the graph's own number type, one sample after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mipnet.arrays import Array, Shape
from mipnet.errors import NetworkError
from mipnet.readers.packed import unpacked

if TYPE_CHECKING:
    from onnx import ModelProto

KINDS: dict[str, type[np.floating]] = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@dataclass(frozen=True, eq=False)
class OnnxSession:
    """An open session: one input of type ``dtype``, of shape ``dims`` in the graph for one sample."""

    session: Any
    name: str
    dtype: type[np.floating]
    dims: Shape

    def run(self, x: Array) -> Array:
        """Outputs in float64, of shape ``(samples, *shape in the graph)``, for inputs with as many numbers a sample as the graph takes."""
        given = x.reshape(len(x), *self.dims).astype(self.dtype)
        return np.stack([np.asarray(self.session.run(None, {self.name: each})[0], np.float64) for each in given])


def open_session(source: ModelProto | str | Path) -> OnnxSession:
    """A session of a model, or of a file, gzipped or not.  Raises ImportError without onnxruntime, and its errors if it cannot run that."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(_given(source), options, providers=["CPUExecutionProvider"])
    (first,) = session.get_inputs()
    sizes = [n if isinstance(n, int) and n > 0 else 1 for n in first.shape]  # an axis of any length holds one sample
    return OnnxSession(session, first.name, KINDS[first.type], tuple(sizes))


def _given(source: ModelProto | str | Path) -> Any:
    """A path if weights may lie beside it, else bytes."""
    if not isinstance(source, str | Path):
        return source.SerializeToString()
    return unpacked(Path(source), "an .onnx file", NetworkError) if str(source).lower().endswith(".gz") else str(source)
