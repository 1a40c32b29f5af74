"""A smaller module: masked units and channels are removed from every module that computes or reads them.

`mipnet.pruning.smaller.removal_plan` determines which elements are removed.  Here the parameters of Linear, Conv2d and BatchNorm modules
are cut accordingly.  The result is compared with the masked network before it is returned.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mipnet.errors import InputError, NetworkError, UnsupportedError, suggest_keywords
from mipnet.network.gates import Gate, by_unit, find_gates, mask_actions
from mipnet.network.graph import Network, Node
from mipnet.pruning.smaller.masks import Threshold, make_masks
from mipnet.pruning.smaller.removal_plan import CUT_LAYERS, RemovalPlan, plan_removal
from mipnet.pruning.smaller.torch_masks import is_owned, owner, refuse_masks, remove_masks, torch_masks
from mipnet.readers.conversion import one_line
from mipnet.readers.torch import from_torch, quiet
from mipnet.readers.torch_copy import copied

TORCH_FOLDER = str(Path(torch.__file__).parent)

SURGERY_TOLERANCE = 1e-9
"""Relative difference between the smaller and the masked network, in float64, up to which the smaller one is accepted."""


@suggest_keywords
def prune(
    module: nn.Module,
    scores_or_masks: xr.Dataset,
    example_input: ArrayLike | Tensor | None = None,
    *,
    threshold: Threshold = 0.1,
) -> nn.Module:
    """Return a smaller copy of a module, which computes what the module computes if the units below the threshold are silenced.

    ``scores_or_masks`` has one variable per gate (gates without one keep all units): scores, which `make_masks` turns into masks with the
    ``threshold``, or masks, booleans that are True for units that stay.  ``example_input`` has the shape ``(samples, *shape of
    one sample)``; only a module that begins with a Linear layer can do without.

    Removed are units and channels with their bias, batch norm and outgoing weights.  Units that cannot be removed (a member of
    a residual sum whose partner stays, say) are zeroed.  The module itself, its training mode and number type are left as they are.

    Raises `InputError` for scores that do not fit, `UnsupportedError` for a forward whose sizes are written into the code.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    refuse_masks(module)
    network = from_torch(module, _example(module) if example_input is None else example_input)
    gates = find_gates(network)
    masks = as_masks(network, gates, scores_or_masks, threshold)
    return cut(module, network, gates, masks)


def as_masks(network: Network, gates: Sequence[Gate], given: xr.Dataset, threshold: Threshold = 0.1) -> xr.Dataset:
    """Return masks of all gates from masks or scores of some of them; raises `InputError` unless they fit the gates."""
    if not isinstance(given, xr.Dataset):
        raise InputError(f"scores or masks are a {type(given).__name__}; expected an xarray.Dataset with one variable per gate")
    known = {gate.name: gate for gate in gates}
    if not given.data_vars or any(name not in known for name in given.data_vars):
        raise InputError(f"the scores are of {list(given.data_vars)}; expected one variable per gate, of {list(known)}")
    given = by_unit(gates, given, "scores", some=True)
    kinds = {values.dtype == bool for values in given.values()}
    if len(kinds) > 1:
        raise InputError("some variables are masks and some are scores; expected the same kind for all gates")
    masked = [gate for gate in gates if gate.name in given]
    fill = {gate.name: (gate.dim, np.ones(gate.units, dtype=bool)) for gate in gates if gate.name not in given}
    return (given if True in kinds else make_masks(network, masked, given, threshold)).assign(fill)


def _example(module: nn.Module) -> Tensor:
    """Return an input for a module whose first layer with weights is Linear."""
    first = next((m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), None)
    if not isinstance(first, nn.Linear):
        raise InputError("prune needs `example_input`, of shape (samples, *shape of one sample), unless the module begins with a Linear")
    return torch.zeros(1, first.in_features)


def cut(module: nn.Module, network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> nn.Module:
    """Return the smaller module as `prune` does, from the network, gates and masks of the module."""
    owned = partial(is_owned, module, network)
    masks = by_unit(gates, masks)
    kept = {gate.name: torch.tensor(masks[gate.name].values, dtype=torch.bool) for gate in gates}
    plan = plan_removal(network, tuple(gates), kept, owned)
    types = {
        name: value.dtype
        for name, value in (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    }
    small = copied(module).to(torch.float64)  # cut and checked in float64: only shifted biases are rounded
    zeroed = xr.Dataset({gate.name: (gate.dim, ~plan.zeroed[gate.name].numpy()) for gate in gates})
    remove_masks(torch_masks(small, network, gates, zeroed))
    for path, node in _uses(network, owned).items():
        _cut_module(owner(small, path), plan.units(node.inputs[0]), plan.units(node.name))
        _shift(small, path, plan, plan.units(node.name))
    _check(small, network, gates, masks)
    for name, value in (*small.named_parameters(), *small.named_buffers()):
        value.data = value.data.to(types[name])
    return small


def _uses(network: Network, owned: partial[bool]) -> dict[str, Node]:
    """Return the first node of each module that can be cut, by path."""
    found: dict[str, Node] = {}
    for node in network.nodes:
        if isinstance(node.layer, CUT_LAYERS) and owned(node):
            found.setdefault(network.modules[node.origin], node)
    return found


def _cut_module(part: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Keep these units of a module, in place."""
    if bool(inputs.all()) and bool(outputs.all()):
        return
    for name, value in [*part._parameters.items(), *part._buffers.items()]:
        if value is None or not value.ndim:
            continue
        left = value.detach()[outputs.to(value.device)]
        if value.ndim > 1 and value.shape[1] == len(inputs):  # not where the inputs are divided among groups
            left = left[:, inputs.to(value.device)]
        replace_tensor(part, name, left.clone())
    fit_sizes(part)


def replace_tensor(part: nn.Module, name: str, value: Tensor) -> None:
    """Give a module another tensor for a parameter or buffer, of any shape."""
    old = part._parameters.get(name)
    if old is None:
        part._buffers[name] = value
    else:
        part._parameters[name] = nn.Parameter(value, requires_grad=old.requires_grad)


def fit_sizes(part: nn.Module) -> None:
    """Set the size attributes of a module to the sizes of its tensors; a convolution with groups loses whole groups."""
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, nn.Conv2d):
        part.groups = part.groups * len(part.weight) // part.out_channels if part.groups > 1 else 1
        part.out_channels, part.in_channels = len(part.weight), part.weight.shape[1] * part.groups
    elif isinstance(part, _BatchNorm):
        part.num_features = len(part._buffers["running_mean"])  # type: ignore[arg-type]


def _shift(module: nn.Module, path: str, plan: RemovalPlan, outputs: Tensor) -> None:
    """Add what removed constants used to add, to the bias or the running mean."""
    part = module.get_submodule(path)
    for name, shifts in (("bias", plan.shifts), ("running_mean", plan.means)):
        if path in shifts:
            value = getattr(part, name)
            with torch.no_grad():
                value += shifts[path][outputs].to(value)


def _check(small: nn.Module, network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> None:
    """Raise unless the smaller module computes what the masked network computes, in float64."""
    x = torch.randn(3, *network.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.from_numpy(network.outputs(x, mask_actions(gates, masks)))
    found = _run(copied(small).to("cpu", torch.float64).eval(), x)
    same_shape = found.shape == wanted.shape
    error = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1)) if same_shape else float("inf")
    if not error <= SURGERY_TOLERANCE:
        raise NetworkError(
            f"the smaller module differs from the masked one by {error:.1e}, relatively; does its forward use weights or sizes"
            " of its layers in other ways than by calling them?"
        )


def _run(module: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad(), quiet():
            found: Tensor = module(x)
            return found
    except Exception as error:
        raise UnsupportedError(
            f"the smaller module does not run: {_place(module, error)} {one_line(error)}; its forward has the size of a layer written"
            " into it: take sizes from tensors, such as `x.flatten(1)` in place of `x.view(-1, 256)`, or keep the units before it"
        ) from None


def _place(module: nn.Module, error: BaseException) -> str:
    """Return the innermost module, and the innermost line outside torch, at which an error was raised."""
    paths = {id(part): path or type(part).__name__ for path, part in module.named_modules()}
    place = type(module).__name__
    for frame, _ in traceback.walk_tb(error.__traceback__):
        place = paths.get(id(frame.f_locals.get("self")), place)
    outside = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(TORCH_FOLDER) and f.filename != __file__]
    line = f", line {outside[-1].lineno} of {Path(outside[-1].filename).name}: `{outside[-1].line}`" if outside else ""
    return f"`{place}`{line} raises"
