"""What the runs of `reach`, `agree`, `compress`, `distortion` and `margin` share: the solver, the input set, and texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipnet.app.files.certify_file import CertifyFile, ImageFile, InputSetFile
from mipnet.app.files.sections import RegionSpec
from mipnet.app.runs.inputs import checked_backend, read_box, read_region
from mipnet.app.runs.result import as_list
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.robustness import Classes
from mipnet.verification.two_networks.agreement import Agreement


def solver_settings(file: CertifyFile) -> MipSettings:
    """Return the solver of a file with its options; raises if the solver does not accept them."""
    return MipSettings(checked_backend(file, file.solve.backend, file.solve.options), file.solve.options or None)


def read_input_set(file: InputSetFile, network: Network, deadline: Deadline = NO_DEADLINE) -> Box:
    """Return the input set of a file: its ``region`` or its ``box``."""
    given = file.input_set
    return read_region(file, given, network, deadline)[0] if isinstance(given, RegionSpec) else read_box(file, given, network)


def classes_of(file: ImageFile, own: int) -> Classes:
    """Return the class that should stay the largest, ``own`` if the file names none, and the classes that may overtake it."""
    return Classes(own if file.robust.label is None else file.robust.label, file.robust.targets)


def softmax_record(network: Network) -> dict[str, Any]:
    """Return the kind of the softmax that a network ends in, None without one, as plain data."""
    return {"softmax": None if network.softmax is None else network.softmax.kind}


def output_lines(network: Network) -> list[str]:
    """Return one line that says what the outputs are if a network ends in a softmax, else none."""
    if network.softmax is None:
        return []
    what = "probabilities" if network.softmax.kind == "softmax" else "log-probabilities"
    return [f"outputs: {what}, the network ends in a {network.softmax.kind}"]


def agreement_record(found: Agreement) -> dict[str, Any]:
    """Return an agreement of two networks as plain data."""
    keys = ("agree", "question", "largest", "method", "shared", "seconds", "parts", "nodes", "backend")
    points = {key: as_list(getattr(found, key)) for key in ("point", "first", "second")}
    bound = found.bound if np.isfinite(found.bound) else None
    return {key: getattr(found, key) for key in keys} | points | {"bound": bound}


def agreement_line(found: Agreement) -> str:
    """Return an agreement of two networks as one line."""
    word = {True: "they agree", False: "they do not agree", None: "not decided"}[found.agree]
    by = f" (by {found.method})" if found.method else ""
    if found.question == "class":
        return f"classes: {word}{by}, {found.seconds:.1f} s"
    return f"{word}: {found.largest:.6g} <= largest difference <= {found.bound:.6g}{by}, {found.seconds:.1f} s"
