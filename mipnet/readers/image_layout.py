"""The layout of images: their axes in the order that a network takes, and other shapes only where no pixel can change its place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipnet.arrays import Array, Shape
from mipnet.errors import DataError

CHANNEL_PLACES = ("first", "last")


def in_shape(images: Array, shape: Sequence[int] | None, channels: str | None, source: str) -> Array:
    """Return images ``(n, *stored shape)`` in the shape ``(n, *shape)``, or in the stored one if ``shape`` is None.

    ``channels="last"`` moves the last of three axes to the front; a flat image is taken as (rows, columns, channels) then.  An image may
    be flattened, and a flat one get a shape, row by row; axes of length 1 may be put in or left out.  Raises `DataError` for every other
    change of shape, and, unless ``channels`` is given, where an image with more than two axes is flattened or made of a flat one.
    """
    if channels is not None and channels not in CHANNEL_PLACES:
        raise DataError(f"channels is `{channels}`; expected `first` or `last`, the place of the channels in the stored images")
    stored, wanted = images.shape[1:], images.shape[1:] if shape is None else tuple(int(n) for n in shape)
    if any(n < 1 for n in wanted) or math.prod(wanted) != math.prod(stored):
        raise DataError(f"an image of `{source}` has shape {stored}, which cannot be reshaped to {wanted}")
    if channels == "last":
        images, stored = _channels_first(images, wanted, shape is not None)
        wanted = stored if shape is None else wanted
    long, asked = (tuple(n for n in each if n > 1) for each in (stored, wanted))
    if long != asked:
        if min(len(long), len(asked)) > 1:
            last = "write `channels: last` if it is stored as (rows, columns, channels), or " if stored[-1:] + stored[:-1] == wanted else ""
            raise DataError(
                f"an image of `{source}` has shape {stored} and is wanted in shape {wanted}, which would move its pixels to other places;"
                f" {last}store its axes in the order that the network takes"
            )
        if channels is None and max(len(long), len(asked)) > 2:
            raise DataError(
                f"an image of `{source}` has shape {stored} and is wanted in shape {wanted}: the order of its pixels depends on where the"
                " channels are stored; write `channels: first` or `channels: last`"
            )
    return images.reshape(len(images), *wanted)


def _channels_first(images: Array, wanted: Shape, known: bool) -> tuple[Array, Shape]:
    """Return images stored as (rows, columns, channels) as (channels, rows, columns), and that shape; images of two axes stay."""
    stored = images.shape[1:]
    if len(stored) == 1 and known and len(wanted) == 3:
        images = images.reshape(len(images), *wanted[1:], wanted[0])
    if images.ndim == 4:
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return images, images.shape[1:]
