"""Local robustness: does the network's answer stay the same in a ball around an input?  In the maximum, the sum or the Euclidean norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend, Options
from mipnet.errors import DataError, InputError
from mipnet.formulations.distance import Norm
from mipnet.model.encoding import Formulation
from mipnet.network.graph import Network, size
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import L1, L2, Box, LInf
from mipnet.verification.oracle import Oracle
from mipnet.verification.pipeline import verify
from mipnet.verification.verdict import Verdict

BALLS = {"linf": LInf, "l1": L1, "l2": L2}

Clip = tuple[float, float] | None


def robustness(
    network: Network,
    x: ArrayLike,
    label: int | None = None,
    *,
    radius: float,
    norm: Norm = "linf",
    targets: Sequence[int] | None = None,
    clip: Clip = (0.0, 1.0),
    time_limit: float = 60.0,
    backend: str | Backend = "highs",
    options: Options | None = None,
    formulation: Formulation | None = None,
    oracle: Oracle | None = None,
    cross_check: str | Backend | None = None,
    seed: int = 0,
) -> Verdict:
    """``unsat`` if no input within ``radius`` of ``x`` changes the network's answer, ``sat`` with one that does; see `mipnet.verify`.

    Parameters
    ----------
    x
        One input, of the network's input shape, or with a sample axis of length 1 in front.
    label
        The class that should win; the network's own answer at ``x`` if left out.
    radius, norm
        Of the ball: ``linf`` the largest change of a coordinate, ``l1`` the sum of changes, ``l2`` the root of the sum of squares.
    targets
        Left out: some other class is at least as high as ``label``.  Otherwise: one of these is at least as high as every other class.
    clip
        The valid range of an input; None for all numbers.

    In ``linf`` and ``l1`` every stage works on the ball itself.  In ``l2`` the linear bounds do too, and the solver works on an outer
    approximation, which is cut to size as far as needed: ``unsat`` holds for more than the ball, ``sat`` has a point of the ball.
    """
    image, own = answer(network, x, label)
    question = robustness_property(around(image, radius, norm, clip), size(network.output_shape), own, targets)
    return verify(
        network,
        question,
        time_limit=time_limit,
        backend=backend,
        options=options,
        formulation=formulation,
        oracle=oracle,
        cross_check=cross_check,
        seed=seed,
    )


def robustness_property(region: Box, classes: int, label: int, targets: Sequence[int] | None = None) -> Property:
    """What must not happen over a set: a class other than ``label`` wins or draws; with ``targets``, one of these does, over all others."""
    unknown = [c for c in (label, *(targets or ())) if not 0 <= c < classes]
    if unknown:
        raise InputError(f"there is no class {unknown[0]}; the network has {classes} outputs, counted from 0")
    if targets is not None and (not len(targets) or label in targets):
        raise InputError(f"the targets are {list(targets)} and the label is {label}; expected other classes, at least one")
    flat = region.reshape((1, region.lower.size))
    if targets is None:
        wins = [Clause(differences(classes, c, [label]), np.zeros(1)) for c in range(classes) if c != label]
    else:
        wins = [Clause(differences(classes, c, [k for k in range(classes) if k != c]), np.zeros(classes - 1)) for c in targets]
    return Property((Case(flat, tuple(wins)),))


def differences(classes: int, winner: int, others: Sequence[int]) -> Array:
    """Rows ``y_k - y_winner`` for the others k: at most 0 where the winner is at least as high."""
    rows = np.zeros((len(others), classes))
    rows[np.arange(len(others)), list(others)] = 1.0
    rows[:, winner] = -1.0
    return rows


def around(x: Array, radius: float, norm: Norm, clip: Clip) -> Box:
    """The ball around an input ``(1, *input_shape)``, clipped."""
    if norm not in BALLS:
        raise InputError(f"the norm is `{norm}`; expected one of {', '.join(BALLS)}")
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"the radius is {radius}; expected a finite number above 0")
    return BALLS[norm](x, radius, *(clip or (-np.inf, np.inf)))


def answer(network: Network, x: ArrayLike, label: int | None = None) -> tuple[Array, int]:
    """The input as ``(1, *input_shape)``, and the label or the network's own answer."""
    image = np.array(x, dtype=np.float64)
    image = image[None] if image.shape == network.input_shape else image
    if image.shape != (1, *network.input_shape):
        raise DataError(f"the input has shape {np.shape(x)}; the network takes {network.input_shape}")
    return image, int(network.forward(image).reshape(-1).argmax()) if label is None else int(label)
