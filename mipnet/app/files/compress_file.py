"""The YAML file of `mipnet compress`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from mipnet.app.files.certify_file import InputSetFile
from mipnet.app.files.values import Text, choice


class CompressFile(InputSetFile):
    """A YAML file for `mipnet compress`: a network, an input set, and the .safetensors, .pt2 or .onnx file to ``save`` to."""

    relative_to_start: ClassVar[tuple[str, ...]] = ("output", "save")

    task: Annotated[Literal["compress"], choice("compress")]
    save: Text | None = None
