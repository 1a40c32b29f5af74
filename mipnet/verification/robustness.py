"""Local robustness: does the network name the same class in a whole ball around an input?  In the maximum, sum or Euclidean norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import DataError, InputError, check_choice, suggest_keywords
from mipnet.formulations.distance import Norm
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.given_arrays import layout_hint, numbers
from mipnet.network.graph import Network, size
from mipnet.network.named_inputs import in_input_order, names_of_inputs
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import L1, L2, Box, LInf
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.verdict import Verdict
from mipnet.verification.verify import verify

BALL_SETS = {"linf": LInf, "l1": L1, "l2": L2}

TARGETS_HINT = "write `mn.Classes(label, targets)` as the label"

MOVED_ARGUMENTS_OF_ROBUSTNESS = MOVED_TO_MIP_SETTINGS | {"targets": TARGETS_HINT}
MOVED_ARGUMENTS_OF_ROBUSTNESS |= {
    name: f"write `mn.verify(network, mn.robustness_property(...), {name}=...)`" for name in ("oracle", "cross_check", "seed")
}
"""What to write instead of arguments that `robustness` does not have any more; see `mipnet.errors.suggest_keywords`."""

ENDS_TOLERANCE_FACTOR = 2.0
"""A solver's own tolerances may leave a gap that is larger than the one that was asked for, up to this factor."""

ClipRange = tuple[float, float] | None
"""The smallest and the largest valid number of an input, or None for all numbers."""


@suggest_keywords
@dataclass(frozen=True)
class Classes:
    """The class that should win, and the classes that are asked about.

    Parameters
    ----------
    label
        The class that should win; the predicted class if None.
    targets
        The classes that may win instead; all others if None.
    """

    label: int | None = None
    targets: Sequence[int] | None = None

    @staticmethod
    def of(given: int | Classes | None) -> Classes:
        """Return the classes for an argument ``label``."""
        return given if isinstance(given, Classes) else Classes(given)

    @property
    def winner(self) -> int:
        """The label; raises `InputError` if there is none."""
        if self.label is None:
            raise InputError("`label` names no class that should win; expected its number, or `Classes` with a label")
        return self.label

    @suggest_keywords
    def others(self, count: int) -> list[int]:
        """Return the targets, or every class but the label, of ``count`` classes; raises `InputError` unless they exist and differ."""
        label = self.winner
        others = [c for c in range(count) if c != label] if self.targets is None else list(self.targets)
        if not others or label in others or not all(0 <= c < count for c in (label, *others)):
            raise InputError(f"the label is {label} and the other classes are {others}; expected different ones from 0 to {count - 1}")
        return others


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_ROBUSTNESS)
def robustness(
    network: Network,
    x: ArrayLike,
    label: int | Classes | None = None,
    *,
    radius: float,
    norm: Norm = "linf",
    clip: ClipRange = (0.0, 1.0),
    time_limit: TimeLimit = 60.0,
    backend: str | Backend | MipSettings = "highs",
) -> Verdict:
    """Verify that no input within ``radius`` of ``x`` changes the predicted class: ``unsat`` if proven, ``sat`` with an input that does.

    Parameters
    ----------
    x
        One input, of the network's input shape, or with a sample axis of length 1 in front.
    label
        The class that should win; the predicted class of ``x`` if left out.  With ``Classes(label, targets)`` the question is
        narrower: whether one of the targets is at least as high as every other class.  Without targets the question is whether any
        other class is at least as high as the label.
    radius, norm
        Radius and norm of the ball: ``linf`` is the largest absolute change, ``l1`` the sum of the absolute changes, ``l2`` the root of the
        sum of their squares.
    clip
        The valid range of an input; None for all numbers.
    time_limit, backend
        As those of `mipnet.verify`.

    In ``linf`` and ``l1`` every stage works on the exact ball.  In ``l2`` the linear bounds do, and the solver works on an outer
    approximation that is refined by cuts: ``unsat`` then holds for more than the ball, and the point of ``sat`` lies in the ball.

    Further settings of the verification (an oracle, a second backend, a seed) go through `mipnet.robustness_property`:
    ``mn.verify(network, mn.robustness_property(network, x, radius=0.1), cross_check="scip")`` asks the same question.
    """
    deadline = Deadline.after(time_limit)
    question = robustness_property(network, x, label, radius=radius, norm=norm, clip=clip)
    return verify(network, question, time_limit=deadline, backend=backend)


@suggest_keywords(moved={"targets": TARGETS_HINT})
def robustness_property(
    network: Network,
    x: ArrayLike,
    label: int | Classes | None = None,
    *,
    radius: float,
    norm: Norm = "linf",
    clip: ClipRange = (0.0, 1.0),
) -> Property:
    """Return the property that `mipnet.robustness` verifies: satisfied by inputs of the ball at which the predicted class changes.

    The arguments are those of `mipnet.robustness`.
    """
    image, classes = image_and_classes(network, x, label)
    return class_change_property(clipped_ball(image, radius, norm, clip), size(network.output_shape), classes)


def class_change_property(region: Box, count: int, classes: Classes) -> Property:
    """Return the property that a set holds an input where another of ``count`` classes is at least as high as the label.

    With targets: where one of the targets is at least as high as every other class.
    """
    label, targets = classes.winner, classes.targets
    unknown = [c for c in (label, *(targets or ())) if not 0 <= c < count]
    if unknown:
        raise InputError(f"there is no class {unknown[0]}; the network has {count} outputs, counted from 0")
    if targets is not None and (not len(targets) or label in targets):
        raise InputError(f"the targets are {list(targets)} and the label is {label}; expected other classes, at least one")
    flat = region.reshape((1, region.lower.size))
    if targets is None:
        wins = [Clause(class_differences(count, c, [label]), np.zeros(1)) for c in range(count) if c != label]
    else:
        wins = [Clause(class_differences(count, c, [k for k in range(count) if k != c]), np.zeros(count - 1)) for c in targets]
    return Property((Case(flat, tuple(wins)),))


def class_differences(classes: int, winner: int, others: Sequence[int]) -> Array:
    """Return one row ``y_k - y_winner`` per other class k: at most 0 where the winner is at least as high as k."""
    rows = np.zeros((len(others), classes))
    rows[np.arange(len(others)), list(others)] = 1.0
    rows[:, winner] = -1.0
    return rows


def clipped_ball(x: Array, radius: float, norm: Norm, clip: ClipRange) -> Box:
    """Return the ball around an input ``(1, *input_shape)``, clipped to the valid range."""
    check_choice("the norm", norm, BALL_SETS)
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"the radius is {radius}; expected a finite number above 0")
    return BALL_SETS[norm](x, radius, *(clip or (-np.inf, np.inf)))


def image_and_classes(network: Network, x: ArrayLike, label: int | Classes | None = None) -> tuple[Array, Classes]:
    """Return the input as ``(1, *input_shape)``, and the classes with the predicted class as label where none is given."""
    network.check_classes()
    classes = Classes.of(label)
    image = in_input_order(np.array(numbers(x, "the input"), dtype=np.float64), names_of_inputs(x), network.input_names, "the input")
    image = image[None] if image.shape == network.input_shape else image
    if image.shape != (1, *network.input_shape):
        hint = layout_hint(image.shape, network.input_shape)
        raise DataError(f"the input has shape {image.shape}; the network takes {network.input_shape}{hint}")
    own = int(network.forward(image).reshape(-1).argmax()) if classes.label is None else int(classes.label)
    return image, Classes(own, classes.targets)
