"""Which dimensions of a labelled input hold the features of a network, and in which order its labels stand.

They are said by name, or decided without doubt; what sizes and names leave open is an error that lists the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from mipnet.arrays import Ints
from mipnet.embedding.sources import InputSource
from mipnet.errors import DataError, InputError, meant
from mipnet.network.given_arrays import label_order
from mipnet.network.graph import INPUT_NODE, Network, dims_of

FEATURE_WORDS = ("feature", "features", f"{INPUT_NODE}_unit", "input", "inputs")
"""Names of a dimension that holds features."""

SAMPLE_WORDS = ("sample", "samples", "batch", "image", "images")
"""Names of a dimension that holds no features."""

IMAGE_WORDS = (("channel", "channels"), ("row", "rows", "height"), ("col", "cols", "column", "columns", "width"))
"""Names of the dimensions of an image, in the order in which a network takes them."""

FeatureDim = str | Sequence[str] | None
"""The dimension of the features, or one for each axis of the network's input; None to decide it."""


def find_feature_dims(source: InputSource, network: Network, given: FeatureDim) -> tuple[str, ...]:
    """Return the dimensions of a source that hold one input of the network, in the order of its axes.

    A network of a single input may have none.  Raises `InputError` if ``given`` does not fit, and if the dimensions leave a choice.
    """
    if given is not None:
        return _checked(source, network, (given,) if isinstance(given, str) else tuple(given))
    return _one(source, network) if len(network.input_shape) == 1 else _several(source, network)


def _checked(source: InputSource, network: Network, dims: tuple[str, ...]) -> tuple[str, ...]:
    sizes = source.sizes
    missing = [dim for dim in dims if dim not in sizes]
    if missing:
        raise InputError(f"`feature_dim` is `{missing[0]}`; {source.what} has dimensions {_shown(sizes)}{meant(missing[0], sizes)}")
    found = tuple(sizes[dim] for dim in dims)
    if found != network.input_shape or len(set(dims)) < len(dims):
        raise InputError(
            f"`feature_dim` is {', '.join(f'`{dim}`' for dim in dims)} of {source.what}, of lengths {found}; the network takes"
            f" {network.input_shape}: expected one dimension for each of its axes"
        )
    return dims


def _one(source: InputSource, network: Network) -> tuple[str, ...]:
    sizes, (count,) = source.sizes, network.input_shape
    shares = {dim: _share_named(source, dim, network.input_names) for dim in sizes}
    named = [dim for dim in sizes if shares[dim] == 1.0] or [dim for dim in sizes if shares[dim] > 0]
    if len(named) == 1:
        return (named[0],)
    if named:
        raise _ambiguous(source, network, named)
    words = [dim for dim in sizes if dim.lower() in FEATURE_WORDS]
    if len(words) == 1:
        return _fitting(source, network, words[0])
    fits = words or [dim for dim, n in sizes.items() if n == count]
    if len(fits) > 1 and not words:
        fits = [dim for dim in fits if dim.lower() not in SAMPLE_WORDS] or fits
    if len(fits) == 1:
        return (fits[0],)
    if not fits and count == 1:
        return ()
    raise _ambiguous(source, network, fits)


def _fitting(source: InputSource, network: Network, dim: str) -> tuple[str, ...]:
    if source.sizes[dim] != network.input_shape[0]:
        raise DataError(f"{source.what} has {source.sizes[dim]} entries along `{dim}`; the network takes {network.input_shape[0]} features")
    return (dim,)


def _share_named(source: InputSource, dim: str, names: tuple[str, ...]) -> float:
    """Return the share of a dimension's labels and of the network's names that stand in both; 0 if the network has no names."""
    labels = source.labels_of(dim)
    if not names or labels is None or isinstance(labels, pd.MultiIndex):
        return 0.0
    both = len(set(labels) & set(names))
    return both / max(len(labels), len(names))


def _several(source: InputSource, network: Network) -> tuple[str, ...]:
    sizes, shape = source.sizes, network.input_shape
    own = dims_of(INPUT_NODE, shape)
    if set(own) <= set(sizes):
        return _checked(source, network, own)
    if len(shape) == len(IMAGE_WORDS):
        words = [[dim for dim in sizes if dim.lower().rpartition("_")[2] in each] for each in IMAGE_WORDS]
        if all(len(each) == 1 for each in words):
            return _checked(source, network, tuple(each[0] for each in words))
    numbered = sorted((dim for dim in sizes if dim.rstrip("0123456789") != dim), key=_number)
    if len(numbered) == len(shape) and len({dim.rstrip("0123456789") for dim in numbered}) == 1:
        return _checked(source, network, tuple(numbered))
    candidates = [dim for dim in sizes if dim.lower() not in SAMPLE_WORDS] if len(sizes) > len(shape) else list(sizes)
    fits = [dims for dims in permutations(candidates, len(shape)) if tuple(sizes[dim] for dim in dims) == shape]
    if len(fits) == 1:
        return fits[0]
    raise InputError(
        f"{source.what} has dimensions {_shown(sizes)}, and the network takes {shape}; name the dimensions of one input in the order of"
        f" its axes, for example `feature_dim={fits[0] if fits else tuple(list(sizes)[-len(shape) :])!r}`"
    )


def _number(dim: str) -> int:
    return int(dim[len(dim.rstrip("0123456789")) :])


def _ambiguous(source: InputSource, network: Network, fits: list[str]) -> InputError:
    count = network.input_shape[0]
    found = f"{source.what} has dimensions {_shown(source.sizes)}, and the network takes {count} features"
    if not fits:
        return DataError(f"{found}; no dimension has this length")
    return InputError(f"{found}; say which dimension holds them: {' or '.join(f'`feature_dim={dim!r}`' for dim in fits)}")


def _shown(sizes: dict[str, int]) -> str:
    return "(" + ", ".join(f"{dim}: {n}" for dim, n in sizes.items()) + ")"


def feature_order(labels: pd.Index | None, count: int, names: tuple[str, ...], what: str) -> Ints:
    """Return the positions of the features along a dimension, or in a dict, in the order of the network's inputs.

    With names of the network's inputs, labels are matched with these; otherwise labels 0, 1, 2, ... are sorted, and others keep their
    order.  Raises `DataError` for labels that are missing or unknown.
    """
    if labels is None:
        return np.arange(count)
    numbered = labels.dtype.kind in "iu" and sorted(labels) == list(range(count))
    if names and not numbered:
        missing, unknown = ([each for each in ones if each not in set(others)] for ones, others in ((names, labels), (labels, names)))
        if missing or unknown or not labels.is_unique:
            told = [f"lacks {', '.join(map(str, missing))}"] * bool(missing)
            told += [f"has {', '.join(map(str, unknown))}, which the network does not know"] * bool(unknown)
            raise DataError(f"{what} {' and '.join(told) or 'has a feature twice'}; the network takes {', '.join(names)}")
        return labels.get_indexer(pd.Index(names)).astype(np.int64)
    return label_order(labels.to_numpy(), what)
