"""What the PyTorch and the ONNX reader share: values of the network under construction, and the call of an operator as its rule sees it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from mipnet.arrays import Shape
from mipnet.layers import Gather, Permute, Reshape
from mipnet.limits.memory import check_memory, making, shown_bytes
from mipnet.network.graph import Layer

PARAMETER_BYTES = 45
"""Bytes per parameter while a network is read: copies in the type of the file and in float64, of the network and of its source."""

MOVING_LAYERS = (Reshape, Permute, Gather)
"""Layers without weights that stand around the layer of an operator."""

FILE_COPIES = 3
"""Copies of a file's content while it is read."""


@dataclass(frozen=True)
class Value:
    """The result of a node for each sample: the node's name and the shape of one sample."""

    name: str
    shape: Shape


AnyValue = TypeVar("AnyValue", bound=Value)


class ConversionCall(Protocol[AnyValue]):
    """One operator of a file or a module, as its conversion rule sees it."""

    def emit(self, layer: Layer, *inputs: AnyValue) -> AnyValue:
        """Add a node that computes ``layer`` from ``inputs``, and return its value."""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator and its place."""

    def reshape(self, x: AnyValue, shape: Shape) -> AnyValue:
        """Return a value in another shape of one sample; no node if that is its shape."""


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of its message, cut after 200 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def reading(source: str, parameters: int) -> AbstractContextManager[None]:
    """Return the context in which a network of this number of parameters is read; raises `MemoryLimitReached` if it would not fit."""
    return making(f"the network of {source} ({parameters:,} parameters)", PARAMETER_BYTES * parameters, "give a smaller network")


def check_file(path: Path, size: float) -> None:
    """Raise `MemoryLimitReached` if the content of a file of this size, in bytes, would not fit into memory."""
    check_memory(f"the content of `{path}` ({shown_bytes(size)})", FILE_COPIES * size, "give a smaller network")
