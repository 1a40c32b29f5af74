"""The run of `mipnet compress`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from mipnet.app.files.base import home_path
from mipnet.app.files.compress_file import CompressFile
from mipnet.app.runs.certify import agreement_line, agreement_record, output_lines, read_input_set, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, task_record
from mipnet.app.runs.resume import resumable
from mipnet.limits.deadline import Deadline
from mipnet.limits.disk import own_file
from mipnet.limits.result_warnings import carries_warnings
from mipnet.pruning.smaller.export import check_export, export
from mipnet.verification.two_networks.compression import compress


@carries_warnings
def run_compression(file: CompressFile, listener: RunListener | None = None, *, resume: bool = False) -> TaskResult:
    """Make a smaller network with equal outputs over the input set of a file, prove it, and save it if the proof succeeds.

    With ``resume`` the states of units that an earlier run has found are not computed again.
    """
    target = None if file.save is None else home_path(file.save)
    with ExitStack() as stack:
        with file.blame("save"):
            if target is not None:
                check_export(target)
            stack.enter_context(own_file(target))
        stack.enter_context(resumable(file, resume))
        return _run(file, target)


def _run(file: CompressFile, target: Path | None) -> TaskResult:
    given, deadline = file.solve, Deadline.after(file.solve.time_limit)
    settings, network = solver_settings(file), read_network(file, deadline)
    region = read_input_set(file, network, deadline)
    with file.blame("network"):
        found = compress(network, region, backend=settings, time_limit=deadline, seed=given.seed)
    lines = output_lines(network)
    lines += [
        f"{each.name}: {each.units} units, {each.silent} always inactive, {each.active} always active,"
        f" {each.changing} unstable, {each.kept} kept"
        for each in found.layers
    ]
    lines += [f"{network.parameters:,} parameters became {found.network.parameters:,}", agreement_line(found.agreement)]
    proven = found.agreement.agree is True
    if target is not None and proven:
        with file.blame("save"):
            export(found.module(torch.float64), target, torch.zeros(1, *network.input_shape, dtype=torch.float64))
        lines.append(f"written to {target}")
    elif target is not None:
        lines.append(f"{target} is not written: the networks are not proven to be equal")
    record = {
        **softmax_record(network),
        "layers": [asdict(each) for each in found.layers],
        "complete": found.complete,
        "rounds": found.rounds,
        "parameters": [network.parameters, found.network.parameters],
        "agreement": agreement_record(found.agreement),
        "saved": str(target) if target is not None and proven else None,
        "seconds": found.seconds,
    }
    return TaskResult(file, task_record(file, record), lines, proven, found.agreement.interrupted, warnings=found.warnings)
