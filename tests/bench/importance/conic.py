"""The published formulation for dense networks, as its authors wrote it: every value a variable, one conic program through cvxpy.

The rows are those of the reference code (gated ReLU with its relaxed indicator v), the objective is S + weight * loss with the sum of
the n - 1 largest layer terms, and Clarabel solves it: an open solver of exponential cones in place of the authors' MOSEK.
"""

from __future__ import annotations

import time
from typing import Any

import cvxpy as cp
import numpy as np

from mipnet.bounds.propagation import propagate
from mipnet.layers import Dense, ReLU, Reshape
from mipnet.network.graph import Network
from mipnet.network.sets import Box
from tests.bench.importance.judge import commit


def solve_conic(network: Network, images: np.ndarray, labels: np.ndarray, weight: float, epsilon: float) -> dict[str, Any]:
    """Processor seconds to write and compile the program, and to solve it; its objective, and its size as Clarabel gets it."""
    began = time.process_time()
    problem = write(network, images, labels, weight, epsilon)
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts={})
    built = time.process_time()
    answer = chain.solve_via_data(problem, data, solver_opts={})
    problem.unpack_results(answer, chain, inverse)
    return {
        "build": built - began,
        "solve": time.process_time() - built,
        "objective": float(problem.value),
        "bound": None,
        "status": str(problem.status),
        "rows": int(data["A"].shape[0]),
        "columns": int(data["A"].shape[1]),
        "cuts": 0,
        "commit": commit(),
    }


def write(network: Network, images: np.ndarray, labels: np.ndarray, weight: float, epsilon: float) -> cp.Problem:
    """The program of a network of dense layers with ReLU between them."""
    bounds = propagate(network, Box(images, images).widen(epsilon), (), "paper")
    count = len(images)
    value, before = images.reshape(count, -1), ""
    rows: list[cp.Constraint] = []
    terms: list[cp.Expression] = []
    for node in network.nodes:
        if isinstance(node.layer, Dense):
            bias = node.layer.weights()["bias"].numpy()
            value, before = value @ node.layer.weights()["weight"].numpy().T + bias, node.name
        elif isinstance(node.layer, ReLU):
            low, high = (end.numpy() for end in (bounds.after[before].lower, bounds.after[before].upper))
            top = np.maximum(high, 0.0)
            h, v, s = cp.Variable(low.shape), cp.Variable(low.shape), cp.Variable(low.shape[1])
            gone = cp.multiply(np.ones((count, 1)) @ cp.reshape(1 - s, (1, low.shape[1]), order="C"), top)
            rows += [h >= 0, h <= cp.multiply(v, top), h >= value - gone, h <= value - cp.multiply(1 - v, low) - gone]
            rows += [v >= 0, v <= 1, s >= 0, s <= 1]
            terms.append(cp.sum(s - 2) / low.shape[1])
            value = h
        elif not isinstance(node.layer, Reshape):
            raise NotImplementedError(node.layer.label)
    right = cp.sum(cp.multiply(np.eye(value.shape[1])[labels], value))
    loss = (cp.sum(cp.log_sum_exp(value, axis=1)) - right) / count
    sparsity = cp.sum_largest(cp.hstack(terms), max(1, len(terms) - 1))
    return cp.Problem(cp.Minimize(sparsity + weight * loss), rows)
