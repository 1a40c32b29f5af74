"""The inputs of a network in a user's model: everything that was given, aligned by label, with the features in the network's order.

Dimensions that hold no features are those of the samples.  Along each, the labels are those of the variables and expressions, which may
lack some: there they are absent, as masked ones are, and where one feature is absent there is no sample.  Numbers must be given for every
sample, and may be given for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import linopy
import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from mipnet.arrays import Csr, Ints, widen
from mipnet.embedding.feature_axes import FeatureDim, feature_order, find_feature_dims
from mipnet.embedding.sources import InputSource, read_source
from mipnet.errors import DataError, InputError
from mipnet.formulations.affine import Affine
from mipnet.model.sample_grid import SampleGrid
from mipnet.network.graph import INPUT_NODE, Network

FEATURES_DIM = "feature"
"""The dimension of the input of a network whose features were given one by one."""


@dataclass(frozen=True, eq=False)
class FeatureAxes:
    """The dimensions of one input with their coordinates, and the names of its elements, flat."""

    dims: tuple[str, ...]
    coords: dict[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of all samples: ``value`` of shape ``(sample, *input_shape)`` over the variables of a model, and their places.

    ``features`` names the elements of one input, flat.
    """

    value: Affine
    grid: SampleGrid
    features: tuple[str, ...]


def read_inputs(model: linopy.Model, network: Network, given: Any, feature_dim: FeatureDim) -> Inputs:
    """Return the inputs of a network from one source with dimensions for its features, or from one source per feature.

    Raises `InputError`, naming the feature, for what does not fit; `DataError` for numbers that are missing or not finite.
    """
    if isinstance(given, Mapping) or (isinstance(given, Sequence) and not isinstance(given, str)):
        return _of_features(model, network, given, feature_dim)
    source = read_source(model, given, "the input `x`")
    dims = find_feature_dims(source, network, feature_dim)
    names = network.input_names
    for dim, count in zip(dims, network.input_shape, strict=False):
        order = feature_order(source.labels_of(dim), count, names if len(dims) == 1 else (), f"`{dim}` of {source.what}")
        source = source.taken(dim, order)
    outer = tuple(dim for dim in source.sizes if dim not in dims)
    labels = {dim: source.labels_of(dim) for dim in dims}
    frame = _frame([source], dims)
    if not dims:  # of a network of one input
        axes = FeatureAxes((f"{INPUT_NODE}_unit",), {}, names or (source.what.strip("`"),))
        return _combined([source], source.places.transpose(*outer).values[..., None], frame, network, axes)
    coords = {dim: index for dim, index in labels.items() if index is not None}
    axes = FeatureAxes(dims, coords, _feature_names(network, labels))
    return _combined([source], source.places.transpose(*outer, *dims).values, frame, network, axes)


def _feature_names(network: Network, labels: Mapping[str, pd.Index | None]) -> tuple[str, ...]:
    if len(labels) == 1 and network.input_names:
        return network.input_names
    each = [range(n) if index is None else index for n, index in zip(network.input_shape, labels.values(), strict=True)]
    return tuple(", ".join(map(str, at)) for at in np.stack(np.meshgrid(*map(np.asarray, each), indexing="ij"), -1).reshape(-1, len(each)))


def _of_features(model: linopy.Model, network: Network, given: Any, feature_dim: FeatureDim) -> Inputs:
    if len(network.input_shape) != 1:
        raise InputError(
            f"the inputs are given one by one; expected one array, since an input of the network has shape {network.input_shape}"
        )
    if feature_dim is not None:
        raise InputError("`feature_dim` is given together with one input per feature; it is for a single array that holds all features")
    count, names = network.input_shape[0], network.input_names
    own = list(given) if isinstance(given, Mapping) else None
    if (len(given) != count) and not (names and own):
        raise DataError(f"{len(given)} inputs are given; the network takes {count} features")
    order = np.arange(count) if own is None else feature_order(pd.Index(own), count, names, "the dict of inputs")
    keys = [str(own[i]) if own is not None else names[i] if names else str(i) for i in order]
    found = [given[own[i]] if own is not None else given[i] for i in order]
    sources = [read_source(model, each, f"input `{key}`") for key, each in zip(keys, found, strict=True)]
    sources = _on_levels(sources)
    frame = _frame(sources)
    starts = np.cumsum([0, *(source.value.constant.size for source in sources)])
    placed = [_placed(source, frame) for source in sources]
    index = np.stack([np.where(each >= 0, each + start, -1) for each, start in zip(placed, starts, strict=False)], axis=-1)
    dim = FEATURES_DIM if FEATURES_DIM not in frame.dims else f"{INPUT_NODE}_unit"
    return _combined(sources, index, frame, network, FeatureAxes((dim,), {dim: pd.Index(keys, name=dim)}, tuple(keys)))


def _on_levels(sources: list[InputSource]) -> list[InputSource]:
    """Return sources of which those over a level of another one's MultiIndex, or over a coordinate of its dimension, have its dimension."""
    dims = {dim for source in sources for dim in source.sizes}
    holders: dict[str, xr.DataArray] = {}
    for source in sources:
        for name, coord in source.places.coords.items():
            if len(coord.dims) == 1 and name not in source.sizes:
                holders.setdefault(str(name), coord)
    found = []
    for source in sources:
        for dim in list(source.sizes):
            holder, index = holders.get(dim), source.labels_of(dim)
            if holder is None or index is None or holder.dims[0] in source.sizes or not index.is_unique:
                continue
            positions = index.get_indexer(pd.Index(holder.values))
            target = str(holder.dims[0])
            if target in dims:
                source = _moved(source, dim, target, positions, holder)
        found.append(source)
    return found


def _moved(source: InputSource, dim: str, target: str, positions: Any, holder: xr.DataArray) -> InputSource:
    """Return a source along ``target`` in place of ``dim``, with these positions of it."""
    places = source.places.drop_vars([name for name, coord in source.places.coords.items() if dim in coord.dims])
    axis = places.dims.index(dim)
    values = np.where(
        np.expand_dims(positions >= 0, tuple(i for i in range(places.ndim) if i != axis)),
        np.take(places.values, np.where(positions >= 0, positions, 0), axis=axis),
        -1,
    )
    moved = xr.DataArray(values, dims=[target if each == dim else each for each in places.dims]).assign_coords(places.coords)
    if target in holder.coords:
        moved = moved.assign_coords(holder.coords)
    return InputSource(moved, source.value, source.absent, source.known, source.what)


def _frame(sources: list[InputSource], feature_dims: Sequence[str] = ()) -> xr.DataArray:
    """Return an array over the dimensions of the samples.

    It has the coordinates of the only source; or of several, the labels of the variables, or of the numbers where only they have one.
    """
    dims = [dim for dim in dict.fromkeys(dim for source in sources for dim in source.sizes) if dim not in feature_dims]
    if len(sources) == 1:
        return sources[0].places.isel(dict.fromkeys(feature_dims, 0), drop=True).transpose(*dims)
    deciding = [source for source in sources if not source.known] + [source for source in sources if source.known]
    indexes = {dim: _common_labels([source for source in deciding if dim in source.sizes], dim) for dim in dims}
    sizes = {dim: next(source.sizes[dim] for source in deciding if dim in source.sizes) for dim in dims}
    shape = [sizes[dim] if index is None else len(index) for dim, index in indexes.items()]
    frame = xr.DataArray(np.zeros(shape, dtype=np.int64), dims=dims)
    for dim, index in indexes.items():
        if index is not None:
            frame = _with_index(frame, dim, index, deciding)
    return frame


def _common_labels(sources: list[InputSource], dim: str) -> pd.Index | None:
    """Return the labels along a dimension of sources that have it; the union for variables, and None if no source has labels."""
    indexes = [source.labels_of(dim) for source in sources]
    for source, index in zip(sources, indexes, strict=True):
        if index is not None and not index.is_unique:
            raise DataError(f"{source.what} has a label twice along `{dim}`; expected each once")
    if any(index is None for index in indexes) and len({source.sizes[dim] for source in sources}) > 1:
        told = ", ".join(f"{source.sizes[dim]} of {source.what}" for source in sources)
        raise DataError(f"the inputs have different lengths along `{dim}` ({told}), and not all have labels there")
    known = [index for index in indexes if index is not None]
    if not known:
        return None
    union = known[0]
    if not sources[0].known:
        for source, index in zip(sources, indexes, strict=True):
            if index is not None and not source.known and not index.equals(union):
                union = union.append(index.difference(union, sort=False))
    return union


def _with_index(frame: xr.DataArray, dim: str, index: pd.Index, sources: list[InputSource]) -> xr.DataArray:
    """Return an array with labels along a dimension; with further coordinates if the labels are those of one source."""
    for source in sources:
        own = source.labels_of(dim)
        if own is not None and own.equals(index):
            along = source.places.isel({other: 0 for other in source.sizes if other != dim}, drop=True)
            return frame.assign_coords(along.coords)
    if isinstance(index, pd.MultiIndex):
        return frame.assign_coords(xr.Coordinates.from_pandas_multiindex(index, dim))
    return frame.assign_coords({dim: index})


def _placed(source: InputSource, frame: xr.DataArray) -> Any:
    """Return the places of a source over the frame, -1 where it has no such label."""
    for dim in source.sizes:
        own, wanted = source.labels_of(dim), frame.indexes.get(dim)
        if own is not None and wanted is not None and not own.equals(wanted):
            source = source.taken(dim, own.get_indexer(wanted))
    missing = [dim for dim in frame.dims if dim not in source.places.dims]
    plain = source.places.drop_vars(list(source.places.coords)).expand_dims({dim: frame.sizes[dim] for dim in missing})
    return plain.transpose(*frame.dims).values


def _combined(sources: list[InputSource], index: Ints, frame: xr.DataArray, network: Network, axes: FeatureAxes) -> Inputs:
    """Put the values of all sources together.

    ``index`` is the position of each input in the values of all sources one after the other, or -1; its shape is that of ``frame`` and
    of one input.
    """
    absent = np.concatenate([source.absent for source in sources])
    known = np.concatenate([np.full(source.value.constant.size, source.known) for source in sources])
    index = index.reshape(frame.size, -1)
    by_data = np.array([source.known for source in sources] * (index.shape[1] if len(sources) == 1 else 1))
    lacking = np.where(index >= 0, absent[index], True)
    present = ~(lacking & ~by_data).any(axis=1)
    grid, features = SampleGrid(frame.copy(data=present.reshape(frame.shape)), axes.dims, axes.coords), axes.names
    if not present.any():
        count = np.count_nonzero(lacking.any(axis=1))
        told = f"{sources[0].what} is masked in {np.count_nonzero(absent)} places" if len(sources) == 1 else "no label has all inputs"
        raise DataError(f"{told}; a network needs every input, and none of {count} samples has all of them")
    chosen = index[present]
    if (chosen < 0).any():
        sample, feature = np.argwhere(chosen < 0)[0]
        raise DataError(
            f"input `{features[feature]}` has no value at {grid.describe(int(sample))}; expected one wherever the variables are"
        )
    width = max(source.value.terms.shape[1] for source in sources)
    terms = Csr(sparse.vstack([widen(source.value.terms, width) for source in sources], format="csr"))
    pool = Affine(terms, np.concatenate([source.value.constant for source in sources]))
    value = pool[chosen.reshape(-1)]
    wrong = ~np.isfinite(value.constant).reshape(chosen.shape)
    if wrong.any():
        sample, feature = np.argwhere(wrong)[0]
        kind = "number" if known[chosen[sample, feature]] else "constant"
        at = grid.describe(int(sample))
        raise DataError(
            f"input `{features[feature]}` has a {kind} that is NaN or infinite{f' at {at}' if at else ''}; expected finite ones"
        )
    return Inputs(value.reshape(len(chosen), *network.input_shape), grid, features)
