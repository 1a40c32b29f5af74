"""Writes `exported.zip`: the networks of `test_torch.py` as both of torch's exporters write them, without names of files and stacks.

    python -m tests.readers.export_onnx

An export takes a second, so the tests read these files and export a few networks afresh.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

HERE = Path(__file__).parent
ZIP = HERE / "exported.zip"


def export(module: nn.Module, shape: tuple[int, ...], *, dynamo: bool, dynamic: bool = True, **given: Any) -> onnx.ModelProto:
    """A model with the input `x`, for a variable number of samples if ``dynamic``, else for one."""
    x = torch.zeros(2 if dynamic else 1, *shape, dtype=next((p.dtype for p in module.parameters()), torch.float32))
    with quiet():
        if dynamo:
            sizes = ({0: torch.export.Dim("samples")},) if dynamic else None
            program = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=sizes, **given)
            assert program is not None
            return bare(program.model_proto)
        buffer = io.BytesIO()
        axes = {"x": {0: "samples"}} if dynamic else {}
        torch.onnx.export(module, (x,), buffer, dynamo=False, input_names=["x"], dynamic_axes=axes, **given)
    return bare(onnx.load_from_string(buffer.getvalue()))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what the exporters print, and their warnings."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the metadata of the exporter on the origin of its parts."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.ClearField("doc_string")
    return model


def main() -> None:
    """Write every network that an exporter supports, for a fixed number of samples if a variable number fails."""
    from tests.readers.test_torch import ALL

    with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (make, shape) in ALL.items():
            for dynamo in (True, False):
                torch.manual_seed(0)
                module = make().eval()
                try:
                    fixed = name in ("reshape-len", "transpose", "squeeze-two")  # `len(x)` becomes a number
                    model = export(module, shape, dynamo=dynamo, dynamic=not fixed)
                except Exception as error:
                    print(f"{name}, {'new' if dynamo else 'old'} exporter: {str(error).splitlines()[0][:100]}")
                    continue
                entry = zipfile.ZipInfo(f"{name}.{'new' if dynamo else 'old'}.onnx", (2026, 1, 1, 0, 0, 0))
                archive.writestr(entry, model.SerializeToString(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
