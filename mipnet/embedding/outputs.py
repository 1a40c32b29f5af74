"""The output of an embedded network tied to variables of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import linopy
import numpy as np
import pandas as pd

from mipnet.arrays import Ints
from mipnet.embedding.feature_axes import feature_order, find_feature_dims
from mipnet.embedding.sources import InputSource, read_source
from mipnet.errors import DataError, InputError
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows
from mipnet.model.encoding import Encoding
from mipnet.network.graph import Network, size


def tie_output(enc: Encoding, output: Any, prefix: str) -> None:
    """Add rows by which variables of the user equal the output of a network.

    Raises `InputError` for anything but variables of the model with the dimensions of the samples, and `DataError` for labels that do not
    fit.
    """
    labels = _labels(enc, output)
    name = f"{prefix}output_tie"
    rows = Affine.of(enc.output_labels) - Affine.of(labels)
    add_rows(enc.model, name, rows, "=", 0.0, ("sample", *enc.network.output.dims), enc.samples)
    enc.own_rows.append(name)
    own = enc.output_labels
    enc.derive(labels, lambda points: points[:, own])


def _labels(enc: Encoding, output: Any) -> Ints:
    """Return the labels of the user's variables, of shape ``(sample, *output_shape)``."""
    shape = enc.network.output_shape
    if isinstance(output, Mapping) or (isinstance(output, Sequence) and not isinstance(output, str)):
        if len(shape) != 1 or len(output) != shape[0]:
            raise InputError(f"{len(output)} outputs are given one by one; the output of the network has shape {shape}")
        own = list(output) if isinstance(output, Mapping) else list(range(len(output)))
        order = feature_order(pd.Index(own), shape[0], (), "the dict of outputs")
        each = [_placed(enc, _variable(enc.model, output[own[i]], f"output `{own[i]}`"), ()) for i in order]
        return np.stack(each, axis=-1)
    source = _variable(enc.model, output, "the variable `output`")
    if size(shape) == 1 and set(source.sizes) == set(enc.grid.dims if enc.grid else ()):
        return _placed(enc, source, ()).reshape(-1, *shape)
    outputs = Network(shape, enc.network.nodes)
    rest = {dim: n for dim, n in source.sizes.items() if dim not in (enc.grid.dims if enc.grid else ())}
    if sorted(rest.values()) != sorted(shape):
        raise _other_dims(enc, source)
    dims = tuple(rest) if tuple(rest.values()) == shape and len(shape) == 1 else find_feature_dims(source, outputs, None)
    for dim, count in zip(dims, shape, strict=True):
        source = source.taken(dim, feature_order(source.labels_of(dim), count, (), f"`{dim}` of {source.what}"))
    return _placed(enc, source, dims)


def _variable(model: linopy.Model, given: Any, what: str) -> InputSource:
    if not isinstance(given, linopy.Variable):
        raise InputError(f"{what} is a {type(given).__name__}; expected a variable of the model, which the output is tied to")
    return read_source(model, given, what)


def _other_dims(enc: Encoding, source: InputSource) -> InputError:
    places = {} if enc.grid is None else {dim: enc.grid.places.sizes[dim] for dim in enc.grid.dims}
    given, wanted = (", ".join(f"{dim}: {n}" for dim, n in sizes.items()) for sizes in (source.sizes, places))
    own = "x".join(map(str, enc.network.output_shape))
    inputs = f"those of the input, ({wanted})" if wanted else "none for the places of the input"
    alone = "; none is needed for a single output" if size(enc.network.output_shape) == 1 else ""
    return InputError(f"{source.what} has the dimensions ({given}); expected {inputs}, and {own} for the output{alone}")


def _placed(enc: Encoding, source: InputSource, dims: tuple[str, ...]) -> Ints:
    """Return the labels of variables over the samples and ``dims``."""
    grid = enc.grid
    assert grid is not None
    outer = tuple(dim for dim in source.sizes if dim not in dims)
    if set(outer) != set(grid.dims):
        raise InputError(f"{source.what} has the dimensions {outer} besides those of the output; expected {grid.dims}, as the input has")
    for dim in outer:
        own, wanted = source.labels_of(dim), grid.places.indexes.get(dim)
        if own is not None and wanted is not None and not own.equals(wanted):
            positions, back = own.get_indexer(wanted), wanted.get_indexer(own)
            if (back < 0).any():
                raise DataError(
                    f"{source.what} has {dim}={own[int(np.argmin(back))]}, where the input has none; select the labels of the input"
                )
            source = source.taken(dim, positions)
        elif source.sizes[dim] != grid.places.sizes[dim]:
            raise DataError(f"{source.what} has {source.sizes[dim]} entries along `{dim}`; expected {grid.places.sizes[dim]}")
    plain = source.places.drop_vars(list(source.places.coords)).transpose(*grid.dims, *dims)
    shape = tuple(source.sizes[dim] for dim in dims)
    places = plain.values.reshape(-1, *shape)[grid.present]
    lacking = (places < 0) | source.absent[np.where(places >= 0, places, 0)]
    if lacking.any():
        at = grid.describe(int(np.argwhere(lacking)[0][0]))
        raise DataError(f"{source.what} has no variable at {at or 'one of its places'}; expected one wherever the network is")
    labels = np.full(source.value.constant.size, -1, dtype=np.int64)
    labels[~source.absent] = source.value.terms.indices
    return np.asarray(labels[places])
