"""The run of `mipnet agree`."""

from __future__ import annotations

from mipnet.app.files.agree_file import AgreeFile
from mipnet.app.runs.certify import (
    agreement_line,
    agreement_record,
    output_lines,
    read_input_set,
    softmax_record,
    solver_settings,
)
from mipnet.app.runs.inputs import read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, task_record
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.verification.two_networks.agree_on_class import agree_on_class
from mipnet.verification.two_networks.agreement import agree


@carries_warnings
def run_agreement(file: AgreeFile, listener: RunListener | None = None) -> TaskResult:
    """Certify the largest difference of the two networks of a file over its input set, or that they name the same class."""
    given, asked, deadline = file.solve, file.agree, Deadline.after(file.solve.time_limit)
    settings, network = solver_settings(file), read_network(file, deadline)
    region = read_input_set(file, network, deadline)
    second = read_network(file, deadline, "second")
    with file.blame("second"):
        if asked.about == "class":
            found = agree_on_class(network, second, region, margin=asked.margin, backend=settings, time_limit=deadline, seed=given.seed)
            proven = found.agree is True
        else:
            found = agree(
                network,
                second,
                region,
                within=asked.within,
                tolerance=given.tolerance,
                backend=settings,
                time_limit=deadline,
                seed=given.seed,
            )
            closed = found.bound - found.largest <= given.tolerance * found.size
            proven = closed if asked.within is None else found.agree is True
    record, lines = softmax_record(network) | agreement_record(found), [*output_lines(network), agreement_line(found)]
    return TaskResult(file, task_record(file, record), lines, proven, found.interrupted, warnings=found.warnings)
