"""How near an image the answer changes, and how far another class gets ahead: found for a file, as a record and as lines."""

from __future__ import annotations

import math
from typing import Any

from mipnet.app.runs.verify import RegionSpec
from mipnet.arrays import Array
from mipnet.network.graph import Network
from mipnet.network.sets import Box
from mipnet.verification.distortion import DistortionSettings, minimum_distortion
from mipnet.verification.margin import maximum_margin
from mipnet.verification.robustness import Classes

Found = tuple[bool, dict[str, Any], tuple[str, ...]]
"""Whether both ends have met, all that was found as plain data, and what is shown."""


def nearest_change(
    network: Network, image: Array, classes: Classes, given: RegionSpec, settings: DistortionSettings, time_limit: float
) -> Found:
    """`minimum_distortion` around an image, up to the radius of the region; the gap of the settings is relative."""
    found = minimum_distortion(
        network, image, classes, upper=given.radius, norm=given.norm, clip=given.clip, time_limit=time_limit, backend=settings
    )
    gap = settings.gap
    there = math.isfinite(found.upper)
    end = f"{found.upper:.6g} (attained)" if there else f"beyond the radius of {given.radius:g}"
    lines = (f"{found.lower:.6g} <= least distance in {found.norm} <= {end}, label {found.label}, {found.seconds:.1f} s",)
    record = {
        "lower": found.lower,
        "upper": found.upper if there else None,
        "norm": found.norm,
        "label": found.label,
        "point": None if found.point is None else found.point.tolist(),
        "outputs": None if found.output is None else found.output.tolist(),
        "seconds": found.seconds,
        "nodes": found.nodes,
    }
    # a solver's tolerances may keep the ends apart by a little more than was asked for
    closed = found.gap <= 2 * gap if there else found.lower >= given.radius * (1 - 2 * gap)
    return closed, record, lines


def largest_lead(network: Network, region: Box, classes: Classes, settings: DistortionSettings, time_limit: float) -> Found:
    """`maximum_margin` over a set; the gap of the settings is absolute."""
    label, gap = classes.label, settings.gap
    found = maximum_margin(network, region, classes, gap=gap, time_limit=time_limit, backend=settings, seed=settings.seed)
    told = f"{found.lower:.6g} (attained, class {found.target}) <= largest margin over class {label} <= {found.upper:.6g}"
    record = {
        "lower": found.lower,
        "upper": found.upper,
        "label": label,
        "target": found.target,
        "uppers": {str(each): end for each, end in found.uppers.items()},
        "point": found.point.tolist(),
        "outputs": found.output.tolist(),
        "seconds": found.seconds,
        "nodes": found.nodes,
    }
    return found.gap <= 2 * gap, record, (f"{told}, {found.seconds:.1f} s",)
