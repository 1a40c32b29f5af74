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

    ``channels="last"`` moves the last of three axes to the front; a flat image is taken as (rows, columns, channels) then.  For a network
    with channels last, ``channels="first"`` moves the first axis to the end.  An image may be flattened, and a flat one get a shape, row by
    row; axes of length 1 may be put in or left out.  Raises `DataError` for every other change of shape, and, unless ``channels`` is given,
    where an image with more than two axes is flattened or made of a flat one.
    """
    if channels is not None and channels not in CHANNEL_PLACES:
        raise DataError(f"channels is `{channels}`; expected `first` or `last`, the place of the channels in the stored images")
    stored, wanted = images.shape[1:], images.shape[1:] if shape is None else tuple(int(n) for n in shape)
    if any(n < 1 for n in wanted) or math.prod(wanted) != math.prod(stored):
        raise DataError(f"an image of `{source}` has shape {stored}, which cannot be reshaped to {wanted}")
    if channels is not None:
        images = _in_order(images, wanted if shape is not None else None, channels)
        stored = images.shape[1:]
        wanted = stored if shape is None else wanted
    long, asked = (tuple(n for n in each if n > 1) for each in (stored, wanted))
    if long != asked:
        if min(len(long), len(asked)) > 1:
            place = next((place for place in CHANNEL_PLACES if len(stored) == 3 and _turned(stored, place) == wanted), None)
            order = {"last": "(rows, columns, channels)", "first": "(channels, rows, columns)", None: ""}[place]
            hint = f"write `channels: {place}` if it is stored as {order}, or " if place is not None else ""
            raise DataError(
                f"an image of `{source}` has shape {stored} and is wanted in shape {wanted}, which would move its pixels to other places;"
                f" {hint}store its axes in the order that the network takes"
            )
        if channels is None and max(len(long), len(asked)) > 2:
            raise DataError(
                f"an image of `{source}` has shape {stored} and is wanted in shape {wanted}: the order of its pixels depends on where the"
                " channels are stored; write `channels: first` or `channels: last`"
            )
    return images.reshape(len(images), *wanted)


def _in_order(images: Array, wanted: Shape | None, channels: str) -> Array:
    """Return images with their channels where a network of input shape ``wanted`` has them: first, unless only the other order fits.

    Images of fewer than three axes stay, except that a flat image becomes (rows, columns, channels) if the channels are last.
    """
    stored = images.shape[1:]
    if channels == "last" and len(stored) == 1 and wanted is not None and len(wanted) == 3:
        images = images.reshape(len(images), *wanted[1:], wanted[0])
        stored = images.shape[1:]
    if len(stored) != 3:
        return images
    fits = _turned(stored, channels) == wanted
    if channels == "last":
        return np.ascontiguousarray(np.moveaxis(images, -1, 1)) if fits or stored != wanted else images
    return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if fits and stored != wanted else images


def _turned(stored: Shape, channels: str) -> Shape:
    """Return the shape of an image of three axes after its channels, which are first or last, are moved to the other end."""
    return (stored[2], *stored[:2]) if channels == "last" else (*stored[1:], stored[0])
