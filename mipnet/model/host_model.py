"""A user's linopy model: reading its solution, and removing variables and constraints from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import linopy
import numpy as np

from mipnet.arrays import Array
from mipnet.errors import InputError

KEPT_ATTRIBUTE = "_mipnet_networks"
"""Attribute of a model's container of variables that holds its networks."""

MARK_ATTRIBUTE = "mipnet"
"""Attribute of a variable that holds its `Mark`."""


def solution_of(model: linopy.Model) -> Array:
    """Return the solution of a model by variable label; NaN where there is none."""
    point = np.full(model._xCounter, np.nan)
    for variable in model.variables.data.values():
        if "solution" in variable.data:
            labels = variable.labels.values.reshape(-1)
            point[labels[labels >= 0]] = variable.data["solution"].values.reshape(-1)[labels >= 0]
    return point


class KeptObjects(list[object]):
    """Objects that live as long as a model; a copy of the model and a pickled one have none of them."""

    def __reduce__(self) -> tuple[type[KeptObjects], tuple[()]]:
        return KeptObjects, ()

    def __deepcopy__(self, memo: object) -> KeptObjects:
        return KeptObjects()


class Mark(str):
    """An attribute of a variable that says whose output it is, and how that gets into another model.

    linopy copies and pickles attributes, so that a copy of a model and a pickled one have them, too; a file has only the text.
    """

    owner: Any

    @staticmethod
    def of(owner: object) -> Mark:
        """Return the mark of a network, which has a method ``packed``."""
        mark = Mark("output of a network that mipnet computes again")
        mark.owner = owner
        return mark

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return Mark.of, (self.owner.packed(),)
        except Exception:  # what a user's own layer or formulation captured may be anything; then the network is refused by name later
            return str, (str(self),)

    def __deepcopy__(self, memo: object) -> Mark:
        return self


def keep_with(model: linopy.Model, kept: object) -> None:
    """Keep an object alive as long as a model: a network is computed again at each solution although the user dropped its handle."""
    variables: Any = model.variables
    if not hasattr(variables, KEPT_ATTRIBUTE):
        setattr(variables, KEPT_ATTRIBUTE, KeptObjects())
    getattr(variables, KEPT_ATTRIBUTE).append(kept)


def drop_kept(model: linopy.Model, kept: object) -> None:
    """Keep an object no longer."""
    found = getattr(model.variables, KEPT_ATTRIBUTE, KeptObjects())
    found[:] = [each for each in found if each is not kept]


def remove_from(model: linopy.Model, variables: Sequence[str], constraints: Sequence[str]) -> None:
    """Remove variables and constraints; raises `InputError`, and removes nothing, if other constraints contain the variables."""
    present = [name for name in variables if name in model.variables]
    labels = np.concatenate([model.variables[name].labels.values.reshape(-1) for name in present]) if present else np.zeros(0, np.int64)
    labels = labels[labels >= 0]
    others = [name for name, each in model.constraints.items() if name not in constraints and each.has_labels(labels)]
    if others:
        raise InputError(f"the constraints {', '.join(f'`{name}`' for name in others)} contain variables of the network; remove them first")
    model.remove_constraints([name for name in constraints if name in model.constraints])
    for name in present:
        model.remove_variables(name)
