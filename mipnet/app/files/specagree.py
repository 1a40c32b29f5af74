"""What is proven of the smaller network in a YAML file, ``prune.agree: {radius: 0.01, count: 4}``."""

from __future__ import annotations

from mipnet.app.files.types import Clip, Count, Part, Positive


class BallsSpec(Part):
    """Around the first ``count`` held-out images, within ``radius`` in every pixel: does the class stay without the pruned units?

    Balls are clipped to ``clip``, or to the least and largest number of the held-out images; ``time_limit`` is in seconds for each.
    """

    radius: Positive
    count: Count = 4
    clip: Clip | None = None
    time_limit: Positive = 10.0
