"""`add_network`: write a network into a user's linopy model, over the user's dimensions and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linopy
import numpy as np
import pandas as pd
import torch
import xarray as xr

from mipnet.arrays import Mask
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Mode
from mipnet.bounds.propagation import wanted_bounds
from mipnet.embedding.envelopes import add_envelopes
from mipnet.embedding.feature_axes import FeatureDim
from mipnet.embedding.input_bounds import InputBounds, InputRange, find_bounds, one_set
from mipnet.embedding.inputs import Inputs, read_inputs
from mipnet.embedding.outputs import tie_output
from mipnet.embedding.region_rows import regions_fit, write_regions
from mipnet.embedding.region_shares import BoxCases, NetworkRegions
from mipnet.embedding.settings import EmbeddingSettings
from mipnet.embedding.user_networks import as_network
from mipnet.errors import InputError, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.formulation_choice import Formulation
from mipnet.formulations.linopy_rows import add_rows, add_variables
from mipnet.limits.deadline import Deadline
from mipnet.model.encode import BOUNDS_TIME_SHARE, refuse_softmax, write_network, write_polytope
from mipnet.model.encoding import Encoding
from mipnet.network.graph import INPUT_NODE, Network
from mipnet.network.sets import Box
from mipnet.readers.estimators.reader import Estimator

FLAT_SAMPLES = "sample"
"""Dimension of the samples in the variables and rows inside a network, if the samples have not exactly one dimension."""


@suggest_keywords(moved={"time_limit": "write `formulation=mn.EmbeddingSettings(..., time_limit=...)`"})
def add_network(
    model: linopy.Model,
    network: Network | torch.nn.Module | Estimator | str | Path,
    x: Any,
    output: Any = None,
    *,
    feature_dim: FeatureDim = None,
    bounds: InputBounds | Box | Mode | Bounds | None = None,
    prefix: str = "",
    formulation: Formulation | EmbeddingSettings | None = None,
) -> Encoding:
    """Write a network into an existing linopy model, once for every label of the input's other dimensions.

        h = mn.add_network(model, net, {"wind": wind, "load": 0.9 * load, "temperature": weather})
        model.add_constraints(h.output.isel(fc3_unit=0, drop=True) <= price)

    Parameters
    ----------
    model
        The model; it may already contain other networks.
    network
        The network, a torch module, a fitted estimator that `mipnet.from_sklearn` reads, or the path of a file that `mipnet.read` reads.
    x
        The input: a variable or linear expression of the model or a labelled array of numbers, with one dimension for the features; or a
        list or dict of such (and of numbers), one per feature.  All other dimensions stay, with their labels, and broadcast.  Where a
        variable is masked or has no such label, there is no network.  Numbers are folded into the network.
    output
        Variables of your own that equal the output: one variable, or a list or dict of them by output.
    feature_dim
        The dimension that holds the features, or one for each axis of an input.  Needed if names and lengths leave a choice.
    bounds
        Bounds of the inputs, ``{"wind": (0, 25)}`` or a pair of arrays, where variables have none, or tighter ones; these are written as
        rows.  Bounds of an expression follow from those of its variables.  Or an input set for every input, such as the
        `mipnet.ConvexHull` of the training data, which is written as rows.  (A name or a `Bounds` object: as in `EmbeddingSettings`.)
    prefix
        Prefix of every new name, so that one model can contain several networks.
    formulation
        As for `encode`, or `EmbeddingSettings`, which also have a time limit.

    If the network has `Network.input_names`, features are matched with these by label; otherwise labels 0, 1, 2, ... are sorted, and
    others keep their order.  If the call fails, what was written of the network is removed from the model.

    Returns the `Encoding`.  Its ``output`` has the user's dimensions and those of the network's output; it is masked where there is no
    network.  Raises `InputError` for inputs that do not fit or leave a choice, `UnboundedError` for one without finite bounds, and
    `UnsupportedError` and `TimeLimitReached` as `encode`.
    """
    settings = EmbeddingSettings.of(formulation)
    deadline = Deadline.after(settings.time_limit)
    mode, own_bounds = (bounds, None) if isinstance(bounds, str | Bounds) else (settings.bounds, bounds)
    known = as_network(network, x, feature_dim, deadline)
    refuse_softmax(known)
    inputs = read_inputs(model, known, x, feature_dim)
    shared = [dim for dim in known.output.dims if dim in inputs.grid.dims]
    if shared:
        raise InputError(f"the input has the dimension `{shared[0]}`, which the output of the network gets; rename that of the input")
    tighten = deadline.share(BOUNDS_TIME_SHARE) if settings.tighten == "host" else None
    polytope = None
    if isinstance(own_bounds, Box):
        within = one_set(known, inputs, own_bounds)
        own_bounds, polytope = (within.lower[0], within.upper[0]), within.polytope
    ends = find_bounds(model, inputs, own_bounds, _called(x), tighten)
    region = Box(ends.lower, ends.upper, polytope=polytope).fit(known.input_shape)
    nodes = wanted_bounds(known, region, (), mode, 0.0, deadline.share(BOUNDS_TIME_SHARE))
    enc = Encoding(known, model, region, nodes, (), _samples(inputs, known, prefix), threshold_gap=settings.threshold_gap)
    before = {*model.variables, *model.constraints}
    try:
        enc.grid, enc.host, enc.enforced = inputs.grid, inputs.value, ends.tighter
        enc.values[INPUT_NODE] = _written_input(enc, ends, prefix)
        write_polytope(enc, prefix)
        cases = BoxCases.of(region)
        regions = NetworkRegions.of(known, cases, settings.wanted_regions, deadline)
        if regions is not None and (settings.regions is True or regions_fit(regions)):
            write_regions(enc, regions, deadline, prefix=prefix)
        else:
            write_network(enc, settings.formulation or {}, deadline, prefix=prefix)
            add_envelopes(enc, cases, settings.envelope, prefix, deadline)
        if output is not None:
            tie_output(enc, output, prefix)
    except BaseException:
        model.remove_constraints([name for name in model.constraints if name not in before])
        for variable in [name for name in model.variables if name not in before]:
            model.remove_variables(variable)
        raise
    enc.own_variables = [name for name in model.variables if name not in before]
    return enc


add_predictor = add_network


def _called(x: Any) -> str:
    return f"variable `{x.name}`" if isinstance(x, linopy.Variable) else "the input"


def _samples(inputs: Inputs, network: Network, prefix: str) -> xr.DataArray:
    """Return the dimension and labels of the samples inside the network: the user's if there is one, else their numbers."""
    places, count = inputs.grid.places, len(inputs.value.constant)
    taken = {dim for node in network.nodes for dim in node.dims}
    labels = places.indexes.get(places.dims[0]) if places.ndim == 1 and bool(places.all()) else None
    if labels is not None and not isinstance(labels, pd.MultiIndex):
        dim = str(places.dims[0])
        if dim not in taken and not any(dim.startswith(node.name) for node in network.nodes):
            return xr.DataArray(labels.to_numpy(), dims=dim)
    name = f"{prefix}{FLAT_SAMPLES}"
    while name in places.dims or name in taken:
        name = f"flat_{name}"
    return xr.DataArray(np.arange(count), dims=name)


def _written_input(enc: Encoding, ends: InputRange, prefix: str) -> Affine:
    """Return the input as constants and single variables: an expression gets a variable of its own.

    Where given bounds are tighter than those of a variable, they are written as rows.
    """
    value = enc.source
    if value.is_fixed:
        return Affine.fixed(value.constant)
    sizes = value.row_sizes
    plain = (sizes == 1) & (value.constant.reshape(-1) == 0)
    plain[plain] = value.terms.data[value.terms.indptr[:-1][plain]] == 1
    own = ((sizes > 0) & ~plain).reshape(value.shape)
    made = value[~own].place(~own)
    if own.any():
        name = f"{prefix}{INPUT_NODE}"
        dim = {f"{name}_number": np.arange(np.count_nonzero(own))}
        variable = add_variables(enc.model, name, ends.lower[own], ends.upper[own], dim)
        labels = np.asarray(variable.labels.values)
        expressions = value[own]
        rows = expressions - Affine.of(labels)
        add_rows(enc.model, f"{name}_is", rows, "=", 0.0, tuple(dim), enc.samples)
        enc.own_rows.append(f"{name}_is")
        index, weight = _torch_terms(expressions)
        constant = torch.as_tensor(expressions.constant)
        enc.derived.append((labels, lambda points: constant + (points[:, index] * weight).sum(dim=2)))
        made = made + Affine.of(labels).place(own)
    _write_given_bounds(enc, made, ends, ends.tighter & plain.reshape(value.shape), prefix)
    return made


def _torch_terms(value: Affine) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels and coefficients of the terms of a flat value as padded arrays, one row per element."""
    sizes = value.row_sizes
    filled = np.arange(int(sizes.max())) < sizes[:, None]
    labels, factors = np.zeros(filled.shape, dtype=np.int64), np.zeros(filled.shape)
    labels[filled], factors[filled] = value.terms.indices, value.terms.data
    return torch.as_tensor(labels), torch.as_tensor(factors)


def _write_given_bounds(enc: Encoding, value: Affine, ends: InputRange, where: Mask, prefix: str) -> None:
    if not where.any():
        return
    for side, sense, end in (("at_least", ">=", ends.lower), ("at_most", "<=", ends.upper)):
        name = f"{prefix}{INPUT_NODE}_{side}"
        add_rows(enc.model, name, value[where], sense, end[where], (f"{name}_number",), enc.samples)  # type: ignore[arg-type]
        enc.own_rows.append(name)
