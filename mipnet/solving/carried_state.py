"""What a solve of an open problem leaves for the next one, as arrays that can be kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipnet.arrays import Array, Csr
from mipnet.backend import Rows


@dataclass(frozen=True, eq=False)
class CarriedState:
    """The rows that were added to the program, and the best point by column; None if there are none.

    A solve that begins with this state in a new session does not depend on the sessions before.
    """

    rows: Rows | None = None
    point: Array | None = None

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the state as named arrays."""
        found: dict[str, np.ndarray[Any, Any]] = {} if self.point is None else {"point": self.point}
        if self.rows is not None:
            matrix = self.rows.matrix
            found |= {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(matrix.shape)}
            found |= {"lower": self.rows.lower, "upper": self.rows.upper}
        return found

    @staticmethod
    def of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> CarriedState:
        """Return the state of the arrays of `arrays`; raises an error of any kind if they are not those of a state."""
        rows = None
        if "data" in arrays:
            shape = tuple(arrays["shape"].tolist())
            matrix = Csr((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
            rows = Rows(matrix, arrays["lower"], arrays["upper"])
        return CarriedState(rows, arrays.get("point"))
