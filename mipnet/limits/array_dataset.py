"""Arrays of any names as an xarray data set, for files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def array_dataset(arrays: Mapping[str, np.ndarray[Any, Any]], beside: xr.Dataset | None = None) -> xr.Dataset:
    """Return arrays as a data set whose dimensions have names of their own, with the variables of another one ``beside`` them.

    The names of the arrays may hold any character.
    """
    own = "a" if beside is None else max(map(str, [*beside.variables, *beside.dims, ""]), key=len) + "+"  # longer than all of them
    found = {f"{own}{k}": (tuple(f"{own}{k}_{axis}" for axis in range(each.ndim)), each) for k, each in enumerate(arrays.values())}
    names = {"names": json.dumps(list(arrays))}
    return xr.Dataset(found, attrs=names) if beside is None else beside.assign(found).assign_attrs({**names, "own": own})


def dataset_arrays(data: xr.Dataset | None) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of `array_dataset`."""
    if data is None:
        return {}
    own = data.attrs.get("own", "a")
    return {name: data[f"{own}{k}"].values for k, name in enumerate(json.loads(data.attrs["names"]))}


def dataset_beside(data: xr.Dataset | None) -> xr.Dataset | None:
    """Return the data set beside the arrays of `array_dataset`; None if there was none."""
    if data is None or "own" not in data.attrs:
        return None
    own = data.attrs["own"]
    found = data.drop_vars([name for name in data.variables if str(name).startswith(own)])
    found.attrs = {name: value for name, value in data.attrs.items() if name not in ("names", "own")}
    return found
