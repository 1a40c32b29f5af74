"""One thing that a user gives as input of a network: a linopy variable or expression, or numbers, with dimensions and labels.

`InputSource` holds it as flat affine values, and their places over its dimensions.  Places are then aligned, transposed and broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import linopy
import numpy as np
import pandas as pd
import xarray as xr

from mipnet.arrays import Csr, Mask
from mipnet.errors import DataError, InputError, UnsupportedError
from mipnet.formulations.affine import Affine


@dataclass(frozen=True, eq=False)
class InputSource:
    """Affine values with dimensions and labels.

    ``places[...]`` is the position in the flat ``value``.  ``absent`` marks positions without a value, such as those of masked
    variables.  ``known`` is True for numbers.  ``what`` is how an error calls it.
    """

    places: xr.DataArray
    value: Affine
    absent: Mask
    known: bool
    what: str

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each dimension."""
        return {str(dim): int(n) for dim, n in self.places.sizes.items()}

    def labels_of(self, dim: str) -> pd.Index | None:
        """Return the labels along a dimension, or None if it has none."""
        return self.places.indexes.get(dim)

    def taken(self, dim: str, positions: Any) -> InputSource:
        """Return the source with these positions along a dimension, -1 for none."""
        taken = self.places.isel({dim: np.where(positions >= 0, positions, 0)})
        outside = xr.DataArray(positions < 0, dims=dim)
        return replace(self, places=taken.where(~outside, -1).astype(np.int64).transpose(*self.places.dims))


def read_source(model: linopy.Model, given: Any, what: str) -> InputSource:
    """Return what a user gave as a source.

    Raises `InputError` for a variable or an expression of another model, and for anything that is neither one of these nor a number or a
    labelled array of numbers; `UnsupportedError` for a quadratic expression.
    """
    if isinstance(given, linopy.Variable):
        what = f"variable `{given.name}`"
        labels = given.labels
        _check_model(model, given.model, what)
        return InputSource(_places(labels), Affine.of(labels.values).reshape(-1), labels.values.reshape(-1) < 0, known=False, what=what)
    if isinstance(given, linopy.QuadraticExpression):
        raise UnsupportedError(f"{what} is a quadratic expression; a network takes linear ones")
    if hasattr(given, "to_linexpr"):  # of a scalar variable or a scalar expression
        given = given.to_linexpr()
    if isinstance(given, linopy.LinearExpression):
        _check_model(model, given.model, what)
        return _of_expression(given, what)
    return _of_numbers(given, what)


def _check_model(model: linopy.Model, own: linopy.Model, what: str) -> None:
    if own is not model:
        raise InputError(f"{what} belongs to another model than the one that the network is written into")


def _places(frame: xr.DataArray) -> xr.DataArray:
    kept = {name: coord for name, coord in frame.coords.items() if set(coord.dims) <= set(frame.dims)}
    places = xr.DataArray(np.arange(frame.size).reshape(frame.shape), dims=frame.dims)
    return places.assign_coords(frame.drop_vars([name for name in frame.coords if name not in kept]).coords)


def _of_expression(given: linopy.LinearExpression, what: str) -> InputSource:
    """Read an expression.  A place without variables is absent as linopy means it.

    With ``linopy.options["semantics"] = "v1"`` the constant of an absent place is NaN; with ``"legacy"`` a masked variable leaves no trace
    but a place without variables, for which linopy writes no row.
    """
    frame = given.const
    labels, factors = (array.transpose(*frame.dims, "_term").values.reshape(frame.size, -1) for array in (given.vars, given.coeffs))
    live = (labels >= 0) & (factors != 0) & ~np.isnan(factors)
    row = np.repeat(np.arange(frame.size), live.sum(axis=1))
    width = int(labels.max(initial=-1)) + 1
    terms = Csr((factors[live], (row, labels[live])), shape=(frame.size, width))
    terms.sum_duplicates()
    terms.eliminate_zeros()
    constant = frame.values.reshape(-1).astype(np.float64)
    absent = np.isnan(constant)
    if linopy.options["semantics"] != "v1":
        bare = (labels < 0).all(axis=1)
        unclear = bare & ~absent & (constant != 0)
        if unclear.any():
            raise InputError(
                f"{what} has a constant and no variable in {np.count_nonzero(unclear)} places, and linopy does not tell a constant from a"
                " masked variable there; give a list or dict of variables and numbers, or set `linopy.options['semantics'] = 'v1'`"
            )
        absent |= bare
    return InputSource(_places(frame), Affine(terms, np.where(absent, 0.0, constant)), absent, known=False, what=what)


def _of_numbers(given: Any, what: str) -> InputSource:
    if isinstance(given, pd.Series | pd.DataFrame):
        axes = [given.index] if isinstance(given, pd.Series) else [given.index, given.columns]
        for axis, part in zip(axes, ("index", "columns"), strict=False):
            if axis.name is None and not isinstance(axis, pd.MultiIndex):
                lacks = "index has" if part == "index" else "columns have"
                raise DataError(
                    f"{what} is a {type(given).__name__} whose {lacks} no name; expected the name of a dimension: `{part}.name`"
                )
        names = [axis.name if axis.name is not None else "_".join(map(str, axis.names)) for axis in axes]
        given = xr.DataArray(given.to_numpy(), dims=names, coords=dict(zip(names, axes, strict=True)))
    if isinstance(given, xr.DataArray):
        frame = given
    elif np.ndim(given) == 0 and not isinstance(given, str):
        frame = xr.DataArray(np.asarray(given))
    else:
        raise DataError(
            f"{what} is a {type(given).__name__}; expected a linopy variable or expression, a number, or a labelled array of numbers"
            " (`xarray.DataArray`, `pandas.Series` with a named index)"
        )
    if frame.dtype.kind not in "biuf":
        raise DataError(f"{what} is of type {frame.dtype} and not of numbers; expected real numbers")
    values = frame.values.reshape(-1).astype(np.float64)
    return InputSource(_places(frame), Affine.fixed(values), np.zeros(len(values), dtype=np.bool_), known=True, what=what)
