"""The YAML file of `mipnet margin`."""

from __future__ import annotations

from typing import Annotated, Literal

from mipnet.app.files.certify_file import ImageFile
from mipnet.app.files.values import choice


class MarginFile(ImageFile):
    """A YAML file for `mipnet margin`: a network and an input set around an image."""

    task: Annotated[Literal["margin"], choice("margin")]
