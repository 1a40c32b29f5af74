"""Settings of a search for the smallest distortion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mipnet.errors import suggest_keywords
from mipnet.solving.mip_settings import MipSettings


@suggest_keywords
@dataclass(frozen=True)
class DistortionSettings(MipSettings):
    """`MipSettings` for `mipnet.minimum_distortion`, with two more fields.

    Parameters
    ----------
    gap
        A class is finished once its lower bound is within ``gap`` of the distance of the nearest point found, relative to that distance.
    seed
        The seed of the gradient search.
    """

    gap: float = 1e-3
    seed: int = 0

    taken_by: ClassVar[str] = "`minimum_distortion`"

    @property
    def mip(self) -> MipSettings:
        """The settings without the gap and the seed."""
        return MipSettings(self.backend, self.options, self.formulation)
