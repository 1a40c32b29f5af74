"""A network as plain data: its nodes and gates, and the program if there is one, for `mipnet inspect`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.inputs import build_program, installed_backend, read_inputs
from mipnet.app.runs.result import plain
from mipnet.backend import Backend
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.model.encoding import Encoding
from mipnet.model.explanation import explain
from mipnet.model.to_program import from_model
from mipnet.network.gates import find_gates
from mipnet.network.graph import Network, Node
from mipnet.pruning.importance.reduced_program import ReducedProgram


def describe_file(file: SolveFile, time_limit: TimeLimit = None) -> dict[str, Any]:
    """Return the network of a file, with its program, as plain data; see `describe`.

    If the program is not written after ``time_limit`` seconds of the whole call, the network alone is returned, and a note says so.
    """
    deadline = Deadline.after(time_limit)
    inputs = read_inputs(file, deadline)
    try:
        program = build_program(file, inputs, deadline)
        return describe(inputs.network, program, installed_backend(file), deadline)
    except TimeLimitReached as error:
        found = describe(inputs.network)
        return found | {"notes": [*found["notes"], f"the program is not shown: {error}"]}


def describe(
    network: Network, problem: Encoding | ReducedProgram | None = None, backend: Backend | None = None, deadline: Deadline = NO_DEADLINE
) -> dict[str, Any]:
    """Return a network as plain data: its nodes and gates, and of a program its size, unstable units, and the formulation of each node.

    With a ``backend``, the data says how the backend rewrites the program.  Raises `TimeLimitReached` at the
    deadline.
    """
    gates = problem.gates if problem else find_gates(network)
    unstable = problem.bounds.unstable() if isinstance(problem, Encoding) else {}
    data: dict[str, Any] = {
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "parameters": network.parameters,
        "nodes": [_node(node) | ({"unstable": unstable[node.name]} if node.name in unstable else {}) for node in network.nodes],
        "gates": [{"name": g.name, "units": g.units, "nodes": list(g.nodes), "sites": list(g.sites)} for g in gates],
        "softmax": None if network.softmax is None else {"kind": network.softmax.kind, "axes": list(network.softmax.axes)},
        "notes": list(network.notes),
    }
    if problem is not None:
        deadline.check("describe the program")
    if isinstance(problem, Encoding):
        size = from_model(problem.model, problem.convex).size
        data["program"] = {"size": size, "samples": problem.region.samples, "bounds": problem.bounds.mode, "unstable": unstable}
        data["explanation"] = plain(asdict(explain(problem, backend, deadline)))
    elif problem is not None:
        data["program"] = {"size": problem.program.size, "samples": len(problem.frozen.images), "bounds": "paper", "unstable": {}}
    return data


def _node(node: Node) -> dict[str, Any]:
    parameters = sum(w.numel() for w in node.layer.weights().values())
    return {
        "name": node.name,
        "layer": node.layer.label,
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "parameters": parameters,
    }
