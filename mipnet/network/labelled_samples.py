"""Images and their classes, aligned by the labels of the samples; columns of images in the order of a network's input names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mipnet.errors import DataError
from mipnet.network.given_arrays import as_labelled, few_labels, in_order, matched, numbers
from mipnet.network.named_inputs import in_input_order, names_of_inputs

if TYPE_CHECKING:
    import xarray as xr

AligningFunction = TypeVar("AligningFunction", bound=Callable[..., Any])


def align_images_and_labels(holder: Any) -> None:
    """Check the ``images`` and ``labels`` of a frozen dataclass, and store them aligned by `samples_by_label`.

    Named columns are put in the order of its ``network``; a class without a network keeps their names as its ``input_names``.
    """
    network = getattr(holder, "network", None)
    if network is None:
        object.__setattr__(holder, "input_names", names_of_inputs(holder.images, "the array of images"))
    images, labels = samples_by_label(holder.images, holder.labels, () if network is None else network.input_names)
    numbers(images, "the array of images")
    numbers(labels, "the array of labels")
    object.__setattr__(holder, "images", images)
    object.__setattr__(holder, "labels", labels)


def samples_by_label(images: Any, labels: Any, names: Sequence[str] = ()) -> tuple[Any, Any]:
    """Return images and their classes as they are, or as arrays aligned by the labels of their samples if one of them has such labels.

    If the columns of the images and the inputs of a network have ``names``, the columns are put in the order of these.

    Raises `DataError` if the samples of both have different labels, if one has labels out of order and the other one has none, or if the
    columns have other names.
    """
    pictures, classes = as_labelled(images, "sample"), as_labelled(labels, "sample")
    if pictures is None and classes is None:
        return images, labels
    found = labels if classes is None else classes
    if pictures is not None:
        what = "the array of images"
        own, pictures = names_of_inputs(images, what), in_order(pictures, what)
        images = in_input_order(pictures.values, own, names, what)
    places = [_sample_labels(each) for each in (pictures, classes)]
    if pictures is not None and classes is not None and all(each is not None for each in places):
        (dim,) = classes.dims
        named = classes.rename({dim: pictures.dims[0]})
        found = matched(named, pictures.isel(dict.fromkeys(pictures.dims[1:], 0), drop=True), "images and classes")
    elif (only := next((each for each in places if each is not None), None)) is not None and not _increases(only):
        which = "images" if places[0] is not None else "classes"
        raise DataError(
            f"the {which} have labels of samples that do not increase ({few_labels(only)}), and the others have none; give both with such"
            " labels, or both as plain arrays in one order"
        )
    return images, found if classes is None else np.asarray(found)


def _sample_labels(array: xr.DataArray | None) -> Any:
    if array is None or not array.ndim or array.dims[0] not in array.coords:
        return None
    return array.coords[array.dims[0]].to_index()


def _increases(labels: Any) -> bool:
    return labels.dtype.kind not in "iuf" or bool(labels.is_monotonic_increasing and labels.is_unique)


def align_samples(function: AligningFunction) -> AligningFunction:
    """Decorate a function of ``images`` and ``labels``: `samples_by_label` aligns both before it is called, and with its ``network``."""
    parameters = signature(function)

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        bound = parameters.bind(*arguments, **keywords)
        names = getattr(bound.arguments.get("network"), "input_names", ())
        pair = samples_by_label(bound.arguments["images"], bound.arguments["labels"], names)
        bound.arguments["images"], bound.arguments["labels"] = pair
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]
