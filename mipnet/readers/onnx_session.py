"""A session of onnxruntime for an ONNX graph, which runs one sample after another in the number type of the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mipnet.arrays import Array, Shape
from mipnet.errors import NetworkError
from mipnet.readers.file_bytes import PACKED_SUFFIXES, read_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

NUMPY_TYPES: dict[str, type[np.floating]] = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
"""The numpy type of each input type of onnxruntime."""


@dataclass(frozen=True, eq=False)
class OnnxSession:
    """An open session: one input ``name`` of type ``dtype``, whose shape in the graph is ``dims`` for one sample."""

    session: Any
    name: str
    dtype: type[np.floating]
    dims: Shape

    def run(self, x: Array) -> Array:
        """Return the outputs in float64, of shape ``(samples, *shape in the graph)``; each sample of ``x`` is reshaped to ``dims``."""
        given = x.reshape(len(x), *self.dims).astype(self.dtype)
        return np.stack([np.asarray(self.session.run(None, {self.name: each})[0], np.float64) for each in given])


def open_session(source: ModelProto | str | Path) -> OnnxSession:
    """Open a session of a model or of a file, compressed or not.

    Raises ImportError if onnxruntime is not installed, and the errors of onnxruntime if it cannot run the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(_given(source), options, providers=["CPUExecutionProvider"])
    (first,) = session.get_inputs()
    sizes = [n if isinstance(n, int) and n > 0 else 1 for n in first.shape]  # an axis of any length holds one sample
    return OnnxSession(session, first.name, NUMPY_TYPES[first.type], tuple(sizes))


def _given(source: ModelProto | str | Path) -> Any:
    """Return the path of a file that may have its weights beside it, else the bytes of the model."""
    if not isinstance(source, str | Path):
        return source.SerializeToString()
    return read_bytes(Path(source), "an .onnx file", NetworkError) if str(source).lower().endswith(PACKED_SUFFIXES) else str(source)
