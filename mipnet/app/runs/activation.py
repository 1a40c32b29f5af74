"""The run of `mipnet activation`."""

from __future__ import annotations

from mipnet.app.files.activation_file import ActivationFile
from mipnet.app.runs.certify import read_input_set, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, as_list, task_record
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.verification.activation_maximisation import activation_maximisation


@carries_warnings
def run_activation(file: ActivationFile, listener: RunListener | None = None) -> TaskResult:
    """Maximise the score of a class, or the value of a unit, over the input set of a file."""
    given, deadline = file.solve, Deadline.after(file.solve.time_limit)
    settings, network = solver_settings(file), read_network(file, deadline)
    region = read_input_set(file, network, deadline)
    with file.blame("unit"):
        found = activation_maximisation(
            network, file.unit.unit, region, backend=settings, time_limit=deadline, tolerance=given.tolerance, seed=given.seed
        )
    line = f"{found.unit}: {found.value:.6g} <= largest <= {found.bound:.6g} ({found.method}), {found.seconds:.1f} s"
    record = {
        **softmax_record(network),
        "unit": found.unit,
        "status": found.status,
        "value": found.value,
        "bound": found.bound,
        "method": found.method,
        "point": as_list(found.point.values),
        "seconds": found.seconds,
        "nodes": found.nodes,
        "parts": found.parts,
    }
    return TaskResult(file, task_record(file, record), [line], found.status == "optimal", found.interrupted, found.warnings)
