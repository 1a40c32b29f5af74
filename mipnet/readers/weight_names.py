"""The names of weights in files, without what wrappers put in front of them or into them: `module.`, `_orig_mod.`, `model.`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

WRAPPER_PARTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that wrappers of torch add at any place."""


AVERAGING_COUNTER = "n_averaged"
"""The entry that `torch.optim.swa_utils.AveragedModel` adds to a state dict."""


class PlainNames(NamedTuple):
    """The weights by the names that a module has, and a note on what was left out of the names; empty if nothing was."""

    weights: dict[str, Tensor]
    note: str


def plain_names(weights: Mapping[str, Tensor], wanted: Iterable[str], path: object) -> PlainNames:
    """Return the weights with the names that a module wants, if the file has the same names with wrappers around them.

    Left out are the `WRAPPER_PARTS`, and then the first parts that all names have in common, such as ``module.`` of data-parallel training
    and ``model.`` of training frameworks; and the counter of averaged weights.  Nothing is changed unless all names that are wanted are
    there afterwards.
    """
    needed = {name for name in wanted if not name.endswith(".num_batches_tracked")}
    if not weights or needed <= set(weights):
        return PlainNames(dict(weights), "")
    kept = [key for key in weights if key != AVERAGING_COUNTER]
    bare = {key: ".".join(part for part in key.split(".") if part not in WRAPPER_PARTS) for key in kept}
    for count in range(_shared_parts(bare.values()) + 1):
        found = {".".join(name.split(".")[count:]): key for key, name in bare.items()}
        if len(found) == len(kept) and needed <= set(found):
            gone = sorted({f"`{part}.`" for key in kept for part in key.split(".") if part in WRAPPER_PARTS})
            first = ".".join(bare[kept[0]].split(".")[:count])
            gone += [f"`{first}.`"] * bool(first) + [f"`{AVERAGING_COUNTER}`"] * (len(kept) < len(weights))
            note = f"left out of the names of the weights in `{path}`: {', '.join(gone)}"
            return PlainNames({name: weights[key] for name, key in found.items()}, note)
    return PlainNames(dict(weights), "")


def _shared_parts(names: Iterable[str]) -> int:
    """Return the number of first parts that all names have in common, without their last parts."""
    split = [name.split(".")[:-1] for name in names]
    length = min(map(len, split), default=0)
    return next((k for k in range(length) if len({parts[k] for parts in split}) > 1), length)
