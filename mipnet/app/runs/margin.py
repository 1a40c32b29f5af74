"""The run of `mipnet margin`."""

from __future__ import annotations

from mipnet.app.files.margin_file import MarginFile
from mipnet.app.runs.certify import classes_of, output_lines, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_network, read_region
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, task_record
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.verification.margin import maximum_margin
from mipnet.verification.robustness import ENDS_TOLERANCE_FACTOR


@carries_warnings
def run_margin(file: MarginFile, listener: RunListener | None = None) -> TaskResult:
    """Certify the largest margin of another class over the class of the image, over the region of a file."""
    given, deadline = file.solve, Deadline.after(file.solve.time_limit)
    settings, network = solver_settings(file), read_network(file, deadline)
    region, own = read_region(file, file.region, network, deadline)
    classes = classes_of(file, own)
    with file.blame("robust"):
        found = maximum_margin(network, region, classes, gap=given.tolerance, time_limit=deadline, backend=settings, seed=given.seed)
    line = (
        f"{found.lower:.6g} (attained, class {found.target}) <= largest margin over class {classes.label} <= {found.upper:.6g},"
        f" {found.seconds:.1f} s"
    )
    lines = output_lines(network)
    if found.scale == "logits":
        lines.append("margin: a difference of logits, the logarithm of the ratio of the two probabilities")
    record = {
        **softmax_record(network),
        "scale": found.scale,
        "lower": found.lower,
        "upper": found.upper,
        "label": classes.label,
        "target": found.target,
        "uppers": {str(each): end for each, end in found.uppers.items()},
        "point": found.point.tolist(),
        "outputs": found.output.tolist(),
        "seconds": found.seconds,
        "nodes": found.nodes,
    }
    closed = found.gap <= ENDS_TOLERANCE_FACTOR * given.tolerance * found.size
    return TaskResult(file, task_record(file, record), [*lines, line], closed, found.interrupted, found.warnings)
