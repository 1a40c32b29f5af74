"""Arrays whose inputs have names: such columns stand in the order of `Network.input_names`, whatever their order was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Ints
from mipnet.errors import DataError, InputError, meant
from mipnet.network.given_arrays import as_labelled, few_labels, in_order

Names = tuple[str, ...]


def names_of_inputs(value: Any, what: str = "the input", failure: type[InputError] = DataError) -> Names:
    """Return the labels of the last axis of a labelled array if they are text, none for all other values."""
    labelled = as_labelled(value)
    if labelled is None or not labelled.ndim:
        return ()
    dim = in_order(labelled, what, failure).dims[-1]
    labels = labelled.coords[dim].values.tolist() if dim in labelled.coords else []
    return tuple(labels) if all(isinstance(label, str) for label in labels) else ()


def input_order(given: Sequence[str], wanted: Sequence[str], what: str, failure: type[InputError] = DataError) -> Ints:
    """Return the positions among the names ``given`` of the names ``wanted``; raises ``failure`` unless both have the same, each once."""
    own, right = tuple(given), tuple(map(str, wanted))
    takes = f"the network takes {few_labels(right)}"
    for name in own:
        if name not in right:
            raise failure(f"{what} has a feature `{name}`; {takes}{meant(name, right)}")
    for name in right:
        if (count := own.count(name)) != 1:
            raise failure(f"{what} {'lacks the' if not count else 'has twice the'} feature `{name}`; {takes}")
    return np.array([own.index(name) for name in right])


def in_input_order(
    array: NDArray[Any], given: Sequence[str], wanted: Sequence[str], what: str, failure: type[InputError] = DataError
) -> NDArray[Any]:
    """Return an array whose last axis has the names ``given`` with that axis in the order ``wanted``, and as it is if one has no names.

    Raises ``failure`` unless both have the same names, each once.
    """
    if not given or not wanted or tuple(given) == tuple(wanted):
        return array
    return np.ascontiguousarray(array[..., input_order(given, wanted, what, failure)])


def check_input_order(given: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """Raise `DataError` if both have names and these differ, or stand in another order."""
    if given and wanted and tuple(given) != tuple(wanted):
        input_order(given, wanted, what)
        order = f"{what} has the features {few_labels(given)}; the network takes {few_labels(wanted)}"
        raise DataError(f"{order}: give them in this order")
