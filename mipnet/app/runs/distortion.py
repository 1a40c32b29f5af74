"""The run of `mipnet distortion`."""

from __future__ import annotations

import math

from mipnet.app.files.distortion_file import DistortionFile
from mipnet.app.runs.certify import classes_of, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_image, read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, as_list, task_record
from mipnet.app.runs.resume import resumable
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.verification.distortion import minimum_distortion
from mipnet.verification.distortion_settings import DistortionSettings
from mipnet.verification.robustness import ENDS_TOLERANCE_FACTOR


@carries_warnings
def run_distortion(file: DistortionFile, listener: RunListener | None = None, *, resume: bool = False) -> TaskResult:
    """Certify the smallest distance from the image of a file at which the class changes, up to the radius of its region.

    With ``resume`` the search goes on from what an earlier run has found.
    """
    given, region, deadline = file.solve, file.region, Deadline.after(file.solve.time_limit)
    solver, network = solver_settings(file), read_network(file, deadline)
    image, own = read_image(file, region, network, deadline)
    with resumable(file, resume), file.blame("robust"):
        found = minimum_distortion(
            network,
            image,
            classes_of(file, own),
            upper=region.radius,
            norm=region.norm,
            clip=region.clip,
            time_limit=deadline,
            backend=DistortionSettings(solver.backend, solver.options, gap=given.tolerance, seed=given.seed),
        )
    attained = math.isfinite(found.upper)
    if attained:
        distance = f"{found.lower:.6g} <= smallest distance in {found.norm} <= {found.upper:.6g} (attained)"
    else:
        classes = "other class" if file.robust.targets is None else "target class"
        open_ = "" if found.lower >= region.radius else f", not decided from there to {region.radius:g}"
        distance = f"no {classes} within {min(found.lower, region.radius):.6g} in {found.norm}{open_}"
    line = f"{distance}, label {found.label}, {found.seconds:.1f} s"
    record = {
        **softmax_record(network),
        "lower": found.lower,
        "upper": found.upper if attained else None,
        "norm": found.norm,
        "label": found.label,
        "point": as_list(found.point),
        "outputs": as_list(found.output),
        "seconds": found.seconds,
        "nodes": found.nodes,
    }
    gap = ENDS_TOLERANCE_FACTOR * given.tolerance
    closed = found.gap <= gap if attained else found.lower >= region.radius * (1 - gap)
    return TaskResult(file, task_record(file, record), [line], closed, found.interrupted, found.warnings)
