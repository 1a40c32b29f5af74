"""`argmax_is`: rows by which a class has the largest output of a network in a linopy model."""

from __future__ import annotations

from typing import Any

import linopy
import numpy as np
import pandas as pd
import xarray as xr

from mipnet.arrays import Ints
from mipnet.embedding.input_bounds import named_array, over_frame
from mipnet.errors import DataError, InputError, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows
from mipnet.model.encoding import Encoding
from mipnet.network.graph import free_name


@suggest_keywords
def argmax_is(handle: Encoding, label: Any, *, margin: float = 1e-4) -> linopy.constraints.ConstraintBase:
    """Add the rows ``output[label] - output[other] >= margin`` for every other class, and return them.

        handle = mn.add_network(model, classifier, x)
        mn.argmax_is(handle, 3)

    Parameters
    ----------
    handle
        A network in a model, from `add_network` or `encode`, whose output is a vector with one number per class.
    label
        The class that wins: a label of the output's last dimension; or a labelled array of such labels over dimensions of the samples
        (time, plant), for a class of its own in each.
    margin
        By how much it wins, in the units of the output, at least 0.  With 0, classes may be level; and a solver lets a row be violated by
        about 1e-6.

    The rows belong to the network: `Encoding.remove` takes them out, too.  Raises `InputError` for a network without classes, and
    `DataError` for an unknown label.
    """
    shape, dims = handle.network.output_shape, handle.network.output.dims
    if len(shape) != 1 or shape[0] < 2:
        raise InputError(f"the output of the network has shape {shape}; expected a vector with one number for each of several classes")
    winner = _positions(handle, label, dims[0])
    labels, count = handle.output_labels, shape[0]
    others = (winner[:, None] + np.arange(1, count)) % count
    own = np.take_along_axis(labels, winner[:, None], axis=1)
    rows = Affine.of(np.broadcast_to(own, others.shape)) - Affine.of(np.take_along_axis(labels, others, axis=1))
    name = free_name(f"{handle.output.name.removesuffix('output')}argmax_is", set(handle.model.constraints))
    add_rows(handle.model, name, rows, ">=", float(margin), ("sample", f"{name}_other"), handle.samples)
    handle.own_rows.append(name)
    return handle.model.constraints[name]


def _positions(handle: Encoding, label: Any, dim: str) -> Ints:
    """Return the position of the winning class of each sample."""
    known, labelled = handle.output.indexes[dim], named_array(label)
    if labelled is None:
        if np.ndim(label) != 0:
            raise DataError(f"the class is an array without labels; expected a label of `{dim}`, or a labelled array of such")
        wanted = np.full(len(handle.samples), label)
    elif (word := next((each for each in labelled.values.flat if isinstance(each, str | bool | np.bool_)), None)) is not None:
        raise _unknown(word, known, dim)
    elif handle.grid is not None:
        wanted = handle.grid.gathered(over_frame(labelled, handle.grid.places, "the classes"))
    else:
        wanted = over_frame(
            labelled, xr.DataArray(np.zeros(len(handle.samples)), coords=[handle.output.indexes["sample"]]), "the classes"
        ).values
    found = known.get_indexer(wanted) if wanted.dtype.kind != "b" else np.full(len(wanted), -1)
    if (found < 0).any():
        raise _unknown(wanted[int(np.argmin(found))], known, dim)
    return np.asarray(found, dtype=np.int64)


def _unknown(label: Any, known: pd.Index, dim: str) -> DataError:
    text = ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")
    return DataError(f"the output has no class {label}; the labels of `{dim}` are {text}")
