"""The same dense ReLU network in other tools that write networks as mixed-integer programs, each as its own documentation does it.

Functions ``build_...`` end where a tool is ready to solve, functions ``decide_...`` answer a `Question`.  The extra ``peers`` brings
the tools.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipnet.arrays import Array

Weights = Sequence[tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Question:
    """Can another class than ``label`` get ahead of it for some x with ``lower <= x <= upper``?  ``weights`` are those of the layers."""

    weights: Weights
    lower: Array
    upper: Array
    label: int = 0

    @property
    def others(self) -> list[int]:
        """All other classes."""
        return [k for k in range(len(self.weights[-1][1])) if k != self.label]


@dataclass(frozen=True)
class Answer:
    """``sat`` or ``unsat``, or ``time limit``; CPU seconds until the first solve began, and from there on."""

    verdict: str
    build: float
    solve: float


def answered(build: Callable[[], Any], solve: Callable[[Any], str]) -> Answer:
    """Both halves, on the clock."""
    began = time.process_time()
    built = build()
    middle = time.process_time()
    verdict = solve(built)
    return Answer(verdict, middle - began, time.process_time() - middle)


def torch_sequential(weights: Weights) -> Any:
    """The network as PyTorch users have it."""
    import torch

    layers: list[torch.nn.Module] = []
    for weight, bias in weights:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).eval()


def onnx_model(weights: Weights) -> Any:
    """The network as an ONNX graph of Gemm and Relu."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, held, name = [], [], "x"
    for i, (weight, bias) in enumerate(weights):
        held += [numpy_helper.from_array(weight.astype(np.float32), f"w{i}"), numpy_helper.from_array(bias.astype(np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"z{i}"], f"gemm{i}", alpha=1.0, beta=1.0, transA=0, transB=1))
        name = f"z{i}"
        if i < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [name], [f"h{i}"], f"relu{i}"))
            name = f"h{i}"
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, n])
        for end, n in (("x", weights[0][0].shape[1]), (name, len(weights[-1][1])))
    ]
    return helper.make_model(helper.make_graph(nodes, "network", ends[:1], ends[1:], held))


def build_gurobi(module: Any, lower: Array, upper: Array) -> Any:
    """gurobi-machinelearning: one general constraint a neuron, and no bounds; nothing is solved, for its licence is limited in size."""
    import gurobipy as gp
    from gurobi_ml import add_predictor_constr

    with gp.Env(params={"OutputFlag": 0}) as env:
        model = gp.Model(env=env)
    x = model.addMVar((1, len(lower)), lb=lower[None], ub=upper[None])
    add_predictor_constr(model, module, x)
    model.update()
    return model


def build_cvxpy(weights: Weights, lower: Array, upper: Array) -> Any:
    """Big-M by hand in cvxpy, with interval bounds, compiled for HiGHS."""
    import cvxpy as cp

    rows: list[Any] = []
    x = cp.Variable(len(lower), bounds=[lower, upper])
    value: Any = x
    for weight, bias in weights[:-1]:
        centre, radius = weight @ (lower + upper) / 2 + bias, np.abs(weight) @ (upper - lower) / 2
        low, high = np.minimum(centre - radius, 0), np.maximum(centre + radius, 0)
        h, on = cp.Variable(len(bias), nonneg=True), cp.Variable(len(bias), boolean=True)
        z = weight @ value + bias
        rows += [h >= z, h <= z - cp.multiply(low, 1 - on), h <= cp.multiply(high, on)]
        value, lower, upper = h, np.maximum(centre - radius, 0), high
    weight, bias = weights[-1]
    y = cp.Variable(len(bias))
    problem = cp.Problem(cp.Maximize(y[0]), [*rows, y == weight @ value + bias])
    return problem.get_problem_data(cp.HIGHS)


def build_pyscipopt_ml(module: Any, lower: Array, upper: Array, formulation: str = "sos") -> tuple[Any, Any]:
    """PySCIPOpt-ML straight into SCIP, with the interval bounds that it computes; ``sos`` is its default, ``bigm`` the other one."""
    from pyscipopt import Model
    from pyscipopt_ml.add_predictor import add_predictor_constr

    model = Model()
    model.hideOutput()
    x = np.array([[model.addVar(lb=a, ub=b) for a, b in zip(lower.tolist(), upper.tolist(), strict=True)]])
    y = np.array([[model.addVar(lb=None, ub=None) for _ in range(module[-1].out_features)]])
    add_predictor_constr(model, module, x, y, unique_naming_prefix="net_", formulation=formulation)
    return model, y[0]


def build_omlt(graph: Any, lower: Array, upper: Array) -> Any:
    """OMLT from ONNX, big-M with the bounds that it computes."""
    import pyomo.environ as pyo
    from omlt import OmltBlock
    from omlt.io import load_onnx_neural_network
    from omlt.neuralnet import ReluBigMFormulation

    box = {(0, i): (float(a), float(b)) for i, (a, b) in enumerate(zip(lower, upper, strict=True))}
    model = pyo.ConcreteModel()
    model.nn = OmltBlock()
    model.nn.build_formulation(ReluBigMFormulation(load_onnx_neural_network(graph, input_bounds=box)))
    return model


def in_highs(model: Any) -> Any:
    """A Pyomo model inside HiGHS, by Pyomo's persistent interface, the fastest that it has."""
    from pyomo.contrib.appsi.solvers.highs import Highs

    solver = Highs()
    solver.config.load_solution = False
    solver.set_instance(model)
    return solver


def decide_omlt(question: Question, graph: Any, seconds: float) -> Answer:
    """One program: a binary for each other class, one of them is 1, and ``y_k >= y_label`` where it is; to the first point or none."""
    import pyomo.environ as pyo
    from pyomo.contrib.appsi.base import TerminationCondition

    def build() -> Any:
        model = build_omlt(graph, question.lower, question.upper)
        y, most = model.nn.outputs, spread(question)
        model.ahead = pyo.Var(question.others, within=pyo.Binary)
        model.one = pyo.Constraint(expr=sum(model.ahead[k] for k in question.others) == 1)
        model.rows = pyo.Constraint(question.others, rule=lambda m, k: y[0, k] - y[0, question.label] >= -most[k] * (1 - m.ahead[k]))
        model.anything = pyo.Objective(expr=0.0)
        return in_highs(model)

    def solve(solver: Any) -> str:
        solver.config.time_limit = seconds
        solver.highs_options = {"threads": 1}
        found = solver.solve(solver._model)
        if found.best_feasible_objective is not None:
            return "sat"
        return "unsat" if found.termination_condition is TerminationCondition.infeasible else "time limit"

    return answered(build, solve)


def spread(question: Question) -> Array:
    """How far the label can be ahead of each class, from intervals."""
    lower, upper = question.lower, question.upper
    for weight, bias in question.weights[:-1]:
        centre, radius = weight @ (lower + upper) / 2 + bias, np.abs(weight) @ (upper - lower) / 2
        lower, upper = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    weight, bias = question.weights[-1]
    ahead, shift = weight[question.label] - weight, bias[question.label] - bias
    return np.asarray(ahead @ (lower + upper) / 2 + shift + np.abs(ahead) @ (upper - lower) / 2)


def decide_pyscipopt_ml(question: Question, module: Any, seconds: float, formulation: str) -> Answer:
    """One program, as `decide_omlt`."""

    def build() -> Any:
        model, y = build_pyscipopt_ml(module, question.lower, question.upper, formulation)
        most = spread(question)
        ahead = {k: model.addVar(vtype="B") for k in question.others}
        model.addCons(sum(ahead.values()) == 1)
        for k, on in ahead.items():
            model.addCons(y[k] - y[question.label] >= -most[k] * (1 - on))
        return model

    def solve(model: Any) -> str:
        model.setParam("timing/clocktype", 1)  # CPU seconds: whatever else runs on the machine takes nothing away
        model.setParam("limits/time", seconds)
        model.optimize()
        if model.getNSols() > 0:
            return "sat"
        return "unsat" if model.getStatus() == "infeasible" else "time limit"

    return answered(build, solve)
