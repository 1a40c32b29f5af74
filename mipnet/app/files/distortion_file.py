"""The YAML file of `mipnet distortion`."""

from __future__ import annotations

from typing import Annotated, Literal

from mipnet.app.files.certify_file import ImageFile
from mipnet.app.files.values import choice


class DistortionFile(ImageFile):
    """A YAML file for `mipnet distortion`: a network and an image; the radius of ``region`` is the largest distance to search."""

    task: Annotated[Literal["distortion"], choice("distortion")]
