"""The sparsity of an importance program: I_l for each gated layer, and S, the sum of the n - 1 largest of them or of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from linopy import LinearExpression

from mipnet.arrays import Array, Ints
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables, expression
from mipnet.layers.conv import Conv2d
from mipnet.model.encoding import Encoding
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.importance.objective import Objective, SparsityNormalization


def layer_sizes(network: Network, gates: Sequence[Gate], normalize: SparsityNormalization) -> Array:
    """Return N_l for each gate, as defined by `Objective`."""
    units = np.array([gate.units for gate in gates], dtype=np.float64)
    layers = [network[gate.nodes[0]].layer for gate in gates]
    if normalize == "paper":
        kernels = [layer.weight.shape[2] * layer.weight.shape[3] if isinstance(layer, Conv2d) else 1 for layer in layers]
        return np.asarray(units * np.array(kernels))
    if normalize == "parameters":
        counts = np.array([sum(w.numel() for w in layer.weights().values()) for layer in layers], dtype=np.float64)
        return np.asarray(units * counts.mean() / counts)
    return units


def add_sparsity(encoding: Encoding, objective: Objective) -> LinearExpression:
    """Return S as an expression.

    Adds the variables ``sparsity`` (I_l, one per gate) and, for the n - 1 largest, ``level`` q and ``above`` r.
    """
    gates, model = encoding.gates, encoding.model
    sizes = layer_sizes(encoding.network, gates, objective.normalize)
    units = np.array([gate.units for gate in gates])
    level = _variable(encoding, "sparsity", -2 * units / sizes, -units / sizes)
    owned = [encoding.scores[gate.name].labels.values for gate in gates]
    for i, labels in enumerate(owned):  # one row per layer, a few in all
        row = (Affine.of(labels, 1.0 / sizes[i]) - 2.0 / sizes[i]).total().reshape(1)
        add_rows(model, f"sparsity_{gates[i].name}", Affine.of(level[i : i + 1]) - row, "=", 0.0, ("layer",), encoding.samples)
    encoding.derive(level, lambda p: torch.stack([(p[:, part] - 2).sum(dim=1) / n for part, n in zip(owned, sizes, strict=True)], dim=1))
    if objective.layers == "all" or len(gates) == 1:
        return expression(model, Affine.of(level).total(), (), encoding.samples)
    return _largest(encoding, level)


def _largest(encoding: Encoding, level: Ints) -> LinearExpression:
    """Return the sum of all but the smallest entry of ``sparsity``."""
    n, model = len(level), encoding.model
    lower, upper = (np.asarray(end.values) for end in (model.variables["sparsity"].lower, model.variables["sparsity"].upper))
    q = add_variables(model, "level", lower.min(), upper.max(), {})
    r = _variable(encoding, "above", np.zeros(n), np.full(n, float(upper.max() - lower.min())))
    qs = np.full(n, int(q.labels.values))
    add_rows(model, "above_level", Affine.of(r) - Affine.of(level) + Affine.of(qs), ">=", 0.0, ("layer",), encoding.samples)
    encoding.derive(np.asarray(q.labels.values), lambda p: torch.sort(p[:, level], dim=1).values[:, 1])
    encoding.derive(r, lambda p: torch.relu(p[:, level] - p[:, qs]))
    return expression(model, Affine.of(q.labels.values, n - 1.0) + Affine.of(r).total(), (), encoding.samples)


def _variable(encoding: Encoding, name: str, lower: Array, upper: Array) -> Ints:
    coords = {"layer": np.array([gate.name for gate in encoding.gates])}
    labels: Ints = add_variables(encoding.model, name, lower, upper, coords).labels.values
    return labels
