"""The run of `mipnet reach`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipnet.app.files.reach_file import ReachFile
from mipnet.app.files.values import decimal_comma_hint
from mipnet.app.runs.certify import output_lines, read_input_set, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, as_list, task_record
from mipnet.errors import InputError
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.graph import size
from mipnet.verification.reach import Extreme, reach


def _check_lengths(rows: Sequence[Sequence[float]], outputs: int) -> None:
    for k, row in enumerate(rows):
        if len(row) != outputs:
            hint = decimal_comma_hint(row, outputs)
            raise InputError(f"row {k} has {len(row)} numbers; the network has {outputs} outputs{hint}")


@carries_warnings
def run_reach(file: ReachFile, listener: RunListener | None = None) -> TaskResult:
    """Certify the smallest and the largest value of each output, or of each direction, over the input set of a file."""
    given, deadline = file.solve, Deadline.after(file.solve.time_limit)
    settings, network = solver_settings(file), read_network(file, deadline)
    region = read_input_set(file, network, deadline)
    with file.blame("directions"):
        _check_lengths(file.directions or (), size(network.output_shape))
        found = reach(
            network,
            region,
            file.directions,
            backend=settings,
            time_limit=deadline,
            tolerance=given.tolerance,
            seed=given.seed,
        )
    ends = list(zip(found.lowest, found.highest, strict=True))
    lines = output_lines(network)
    lines += [f"{k}: {_line(low, high)}" for k, (low, high) in enumerate(ends)]
    lines.append(f"{'closed' if found.closed else 'not closed'} to a gap of {found.tolerance:g} in {found.seconds:.1f} s")
    record = {
        **softmax_record(network),
        "closed": found.closed,
        "gap": found.gap,
        "directions": as_list(found.directions),
        "functions": [{"least": _end(low), "largest": _end(high)} for low, high in ends],
        "seconds": found.seconds,
        "nodes": found.nodes,
        "parts": found.parts,
    }
    return TaskResult(file, task_record(file, record), lines, found.closed, found.interrupted, warnings=found.warnings)


def _line(low: Extreme, high: Extreme) -> str:
    smallest, largest = f"{low.bound:.6g} <= smallest <= {low.value:.6g}", f"{high.value:.6g} <= largest <= {high.bound:.6g}"
    return f"{smallest}, {largest} ({low.method}, {high.method})"


def _end(end: Extreme) -> dict[str, Any]:
    return {"bound": end.bound, "value": end.value, "method": end.method, "point": as_list(end.point)}
