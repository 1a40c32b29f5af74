"""What the runs of `reach`, `agree`, `compress`, `distortion`, `margin`, `activation` and `counterfactual` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mipnet.app.files.certify_file import CertifyFile, ImageFile, InputSetFile, PolytopeSpec, WrittenSet
from mipnet.app.files.sections import BoxSpec, RegionSpec
from mipnet.app.runs.inputs import checked_backend, read_box, read_region
from mipnet.app.runs.result import as_list
from mipnet.errors import DataError, InputError, shown
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network
from mipnet.network.polytope_sets import ConvexHull, Polytope
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.robustness import Classes
from mipnet.verification.two_networks.agreement import Agreement


def solver_settings(file: CertifyFile) -> MipSettings:
    """Return the solver of a file with its options; raises if the solver does not accept them."""
    return MipSettings(checked_backend(file, file.solve.backend, file.solve.options), file.solve.options or None)


def read_input_set(file: InputSetFile, network: Network, deadline: Deadline = NO_DEADLINE) -> Box:
    """Return the input set of a file."""
    return read_set(file, file.input_set, network, deadline)


def read_set(file: CertifyFile, given: WrittenSet, network: Network, deadline: Deadline = NO_DEADLINE) -> Box:
    """Return the input set of a section of a file."""
    if isinstance(given, RegionSpec):
        return read_region(file, given, network, deadline)[0]
    if isinstance(given, BoxSpec):
        return read_box(file, given, network)
    if isinstance(given, PolytopeSpec):
        with file.blame("polytope"):
            rows = {len(row) for row in given.matrix}
            if len(rows) != 1:
                raise InputError(f"the rows of `matrix` have {sorted(rows)} numbers; expected one per input in each")
            ends = (-np.inf if given.lower is None else given.lower, np.inf if given.upper is None else given.upper)
            return Polytope(np.array(given.matrix), np.array(given.rhs), *ends).fit(network.input_shape, network.input_names)
    with file.blame("hull"):
        points = _points(file.path(given.file))
        return ConvexHull(points, np.asarray(given.enlarge)).fit(network.input_shape, network.input_names)


def _points(path: Path) -> Any:
    """Return the table of a .csv file, or the array of an .npy file."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"no file `{path}`; expected a .csv or .npy file of points").at("file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"`{path}` cannot be read ({shown(str(error))}); expected a table of numbers").at("file") from None
    raise DataError(f"`{path}` has no suffix .csv or .npy; expected a file of points").at("file")


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
