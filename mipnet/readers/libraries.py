"""The libraries that reading a file needs, loaded before a time limit begins to count."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

from mipnet.readers.files import NETWORK_SUFFIXES, ONNX_SUFFIXES, WEIGHT_SUFFIXES, suffix_of

TORCH_READERS = ("torch.export", "torch.fx.experimental.proxy_tensor")

LIBRARIES_BY_NAME = {
    **dict.fromkeys((*NETWORK_SUFFIXES, *WEIGHT_SUFFIXES), TORCH_READERS),
    **dict.fromkeys(ONNX_SUFFIXES, ("onnx.shape_inference", "onnxruntime")),
    "digits": ("sklearn.datasets",),
}
"""Libraries by the suffix of a file, or by the name of a data set, that needs them."""


def load_libraries(names: Iterable[str]) -> None:
    """Load what reading these files and data sets needs, as far as it is installed; other names need nothing."""
    for name in names:
        for library in LIBRARIES_BY_NAME.get(name) or LIBRARIES_BY_NAME.get(suffix_of(name), ()):
            with suppress(ImportError):
                import_module(library)
