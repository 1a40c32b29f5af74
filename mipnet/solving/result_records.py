"""The result of a solve as a record and back, for results that are kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from mipnet.backend import Status
from mipnet.solving.result import Result


def result_numbers(result: Result) -> dict[str, Any]:
    """Return the numbers of a result as JSON data: all but its points and its events."""
    numbers = {name: value for name, value in vars(result).items() if name not in ("x", "point", "trace")}
    return numbers | {"status": result.status.value, "size": dict(result.size)}


def result_of(numbers: Mapping[str, Any], x: xr.Dataset | None) -> Result:
    """Return the result with these numbers; raises an error of any kind if they are not those of a result."""
    known = {"status": Status(numbers["status"]), "rewritten": tuple(numbers["rewritten"])}
    return Result(**{**numbers, **known}, x=x, point=None)
