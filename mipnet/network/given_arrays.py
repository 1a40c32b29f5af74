"""Arrays as users give them: of NumPy, torch, xarray and pandas, or nested lists.

Labels decide, never positions.  The axes of a labelled array are put in mipnet's order by their names: samples first, then channels, rows
and columns, or units; and whole-number labels 0, 1, 2, ... of an axis by their values.  Two arrays that both have labels are aligned by
these.  What cannot be decided by labels is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Shape
from mipnet.errors import DataError, InputError

if TYPE_CHECKING:
    import xarray as xr

AXIS_WORDS = (
    ("sample", "samples", "batch", "image", "images", "n"),
    ("channel", "channels", "band", "bands", "c"),
    ("row", "rows", "height", "y", "h"),
    ("col", "cols", "column", "columns", "width", "x", "w"),
    ("unit", "units", "feature", "features"),
)
"""What an axis may be called, in the order of the axes of an array; a name may begin with that of a node, as in ``input_row``."""

AXIS_RANKS = {word: rank for rank, words in enumerate(AXIS_WORDS) for word in words}


def numbers(value: Any, what: str, failure: type[InputError] = DataError) -> NDArray[Any]:
    """Return real numbers as a NumPy array of their own type, with the axes of a labelled array in mipnet's order.

    Raises ``failure``, naming ``what`` was given, for anything but real numbers: complex or quantised ones, text, masked values, objects;
    and for labelled axes whose order is not known.
    """
    labelled = as_labelled(value)
    array = _plain(value, what, failure) if labelled is None else in_order(labelled, what, failure).values
    if array.dtype.kind == "b":
        raise failure(f"{what} holds True and False; expected real numbers: convert truth values with `.astype(float)` if they are meant")
    if array.dtype.kind in "US":
        hint = ": write the classes as 0, 1, 2, ... with `numpy.unique(labels, return_inverse=True)[1]`" if "label" in what else ""
        raise failure(f"{what} is of type {array.dtype}, text, and not an array of numbers; expected real numbers{hint}")
    if array.dtype.kind not in "iuf":
        raise failure(f"{what} is of type {array.dtype} and not an array of numbers; expected real numbers")
    return array


def _plain(value: Any, what: str, failure: type[InputError]) -> NDArray[Any]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.is_quantized or value.is_complex() or value.layout != torch.strided:
            raise failure(
                f"{what} is a tensor of type {value.dtype} and layout {value.layout}; expected real numbers, one for each element"
            )
        value = value.detach().cpu()
        return np.asarray(value.double() if value.is_floating_point() else value)
    if np.ma.is_masked(value):
        raise failure(f"{what} is an array with {int(np.ma.getmaskarray(value).sum())} masked values; expected numbers in all places")
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise failure(f"{what} is a {type(value).__name__} whose parts do not make one array; expected real numbers in one shape") from None


def as_labelled(value: Any, of_series: str = "unit") -> xr.DataArray | None:
    """Return an array of xarray or pandas as a DataArray, or None for others; ``of_series`` is the axis of a pandas Series."""
    xarray, pandas = (sys.modules.get(name) for name in ("xarray", "pandas"))  # a value of a package that is not loaded cannot be here
    if xarray is not None and isinstance(value, xarray.DataArray | xarray.Variable):
        return make_labelled(value)
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return make_labelled(value.to_numpy(), {"sample": value.index.to_numpy(), "unit": value.columns.to_numpy()})
    if pandas is not None and isinstance(value, pandas.Series):
        return make_labelled(value.to_numpy(), {of_series: value.index.to_numpy()})
    return None


def make_labelled(value: Any, labels: Mapping[str, NDArray[Any]] | None = None) -> xr.DataArray:
    """Return a DataArray of values with the labels along each dimension; without ``labels``, of an object of xarray."""
    import xarray as xr

    return xr.DataArray(value) if labels is None else xr.DataArray(value, dims=tuple(labels), coords=dict(labels))


def axis_rank(dim: str) -> float | None:
    """Return the place of an axis among those of an array, by its name; None if the name says nothing."""
    stem, _, last = str(dim).lower().rpartition("_")
    if last.isdecimal():
        return 1.0 + int(last) if stem and stem != "dim" else None
    return AXIS_RANKS.get(last)


def in_order(array: xr.DataArray, what: str, failure: type[InputError] = DataError) -> xr.DataArray:
    """Return a labelled array with its axes in mipnet's order, and the labels 0, 1, 2, ... of each but the sample axis in their order."""
    ranks = [axis_rank(str(dim)) for dim in array.dims]
    known = [rank for rank in ranks if rank is not None]
    if len(set(known)) < len(known):
        raise failure(f"{what} has dimensions {array.dims}, of which two mean the same axis; rename one of them")
    misplaced = 0 in ranks[1:] or len(AXIS_WORDS) - 1 in ranks[:-1]
    if known != sorted(known) or misplaced:
        if len(known) < len(ranks):
            raise failure(f"{what} has dimensions {array.dims}, whose order mipnet does not know; transpose it, with the samples first")
        array = array.transpose(*(dim for _, dim in sorted(zip(known, array.dims, strict=True))))
    return in_label_order(array, what, failure, [dim for dim in array.dims if axis_rank(str(dim))])


def in_label_order(
    array: xr.DataArray, what: str, failure: type[InputError] = DataError, dims: Iterable[Hashable] | None = None
) -> xr.DataArray:
    """Return a labelled array with the labels 0, 1, 2, ... of some dimensions, by default of all, in their order; see `label_order`."""
    for dim in array.dims if dims is None else dims:
        if dim in array.coords:
            array = array.isel({dim: label_order(array.coords[dim].values, f"`{dim}` of {what}", failure)})
    return array


def label_order(labels: NDArray[Any], what: str, failure: type[InputError] = DataError) -> NDArray[np.int64]:
    """Return the positions of the labels in increasing order if they are 0, 1, 2, ...; of other labels, their own order.

    Raises ``failure`` for whole numbers that are neither.
    """
    own = np.arange(len(labels))
    if labels.dtype.kind not in "iu" or bool((np.diff(labels.astype(np.int64)) > 0).all()):
        return own
    order = np.argsort(labels, kind="stable")
    if not (labels[order] == own).all():
        shown = ", ".join(map(str, labels[:6].tolist())) + (", ..." if len(labels) > 6 else "")
        raise failure(f"the labels along {what} are {shown}; expected 0 to {len(labels) - 1}, each once, or labels that increase")
    return order


def aligned(first: Any, second: Any, what: str, failure: type[InputError] = DataError) -> tuple[Any, Any]:
    """Return two values, the second aligned with the first by dimension and label if both are labelled arrays of the same dimensions.

    Raises ``failure`` if a label of one is missing in the other, or stands twice.
    """
    one, other = as_labelled(first), as_labelled(second)
    if one is None or other is None or set(one.dims) != set(other.dims):
        return first, second
    return one, matched(other, one, what, failure)


def matched(array: xr.DataArray, like: xr.DataArray, what: str, failure: type[InputError] = DataError) -> xr.DataArray:
    """Return an array with the dimensions of another in their order, and its labels in theirs where both have labels."""
    array = array.transpose(*like.dims)
    for dim in like.dims:
        if dim not in array.coords or dim not in like.coords:
            continue
        own, wanted = array.coords[dim].to_index(), like.coords[dim].to_index()
        if not own.is_unique or len(own.symmetric_difference(wanted)):
            raise failure(
                f"{what} have different labels along `{dim}` ({few_labels(own)} and {few_labels(wanted)}); expected the same labels,"
                " each once"
            )
        array = array.isel({dim: own.get_indexer(wanted)})
    return array


def spread(first: Any, second: Any, what: str, failure: type[InputError] = DataError) -> tuple[Any, Any]:
    """Return two values, the second along the axes of the first by name if both are labelled; axes that only the first has get length 1.

    Raises ``failure`` if the second has axes that the first has not, or other labels along an axis.
    """
    one, other = as_labelled(first), as_labelled(second)
    if other is None or not other.ndim:
        return first, second
    if one is None or not set(other.dims) <= set(one.dims):
        if one is None and other.ndim == np.ndim(first):
            return first, second
        raise failure(
            f"{what} have dimensions {other.dims} and {() if one is None else one.dims}; expected those of the first, or a number"
        )
    lacking = [dim for dim in one.dims if dim not in other.dims]
    short = one.isel(dict.fromkeys(lacking, 0), drop=True)
    return one, matched(other, short, what, failure).expand_dims(lacking).transpose(*one.dims)


def few_labels(labels: Any) -> str:
    """Return the first labels of an axis as text."""
    shown = [str(label) for label in labels[:4]]
    return f"{', '.join(shown)}{', ...' if len(labels) > 4 else ''}"


def layout_hint(given: Shape, wanted: Shape) -> str:
    """Return what to add to an error if images of shape ``given`` fit a network that takes ``wanted`` once their channels come first."""
    image = given[-3:]
    if len(image) == 3 == len(wanted) and image != wanted and (image[2], *image[:2]) == wanted:
        return "; the channels seem to be the last axis: put them first, with `numpy.moveaxis(images, -1, -3)`"
    return ""
