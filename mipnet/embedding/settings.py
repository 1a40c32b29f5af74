"""The settings of `mipnet.add_network` that are seldom needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Mode
from mipnet.embedding.region_shares import RegionsChoice
from mipnet.errors import InputError, shown, suggest_keywords
from mipnet.formulations.formulation_choice import Formulation
from mipnet.limits.deadline import TimeLimit


@suggest_keywords
@dataclass(frozen=True)
class EmbeddingSettings:
    """How `mipnet.add_network` writes a network; its argument ``formulation`` takes these settings in place of a formulation.

        mn.add_network(model, net, x, formulation=mn.EmbeddingSettings({"relu": "sos1"}, bounds="alpha", time_limit=60))

    Parameters
    ----------
    formulation
        The formulation by lower-case layer name, as for `mipnet.encode`.
    bounds
        How the bounds of all nodes are computed from those of the inputs, or these bounds, as for `mipnet.encode`.
    time_limit
        Seconds of the whole call, None for no limit.
    tighten
        ``"host"``: the inputs are also bounded by the rows of the model as it is now, by two linear programs per input in at most half of
        the time.  Where these bounds are tighter than those of the variables, they become rows of the network.
    envelope
        True: the convex and the concave envelope of every output over the box of the inputs become rows, for at most three inputs that are
        not fixed.  ``"auto"`` (the default): only where this is possible, and for at most 1,000 different boxes.  False: never.  A network
        that is written by its linear regions needs none.
    regions
        ``"auto"`` (the default): where at most six inputs are not fixed and there are at most 400 linear regions, the network is written by
        these, unless a formulation is given or ``envelope`` is True.  The linear relaxation is then the convex hull of the network, and
        there is no big-M.  True: always; where it is impossible, this is an `UnsupportedError`.  False: never.
    threshold_gap
        The gap at a threshold t of a tree: no input with ``t < x < t + threshold_gap max(1, |t|)`` is a solution, so that an input at t,
        which goes left, cannot count as one above it by the tolerances of a solver.  The gap is at most 0.1, and half of the way to the
        next threshold.  It is below t for trees that go left where ``x < t``.  0 for none.
    """

    formulation: Formulation | None = None
    bounds: Mode | Bounds = "sound"
    time_limit: TimeLimit = None
    tighten: Literal["host"] | None = None
    envelope: RegionsChoice = "auto"
    regions: RegionsChoice = "auto"
    threshold_gap: float = 1e-5

    def __post_init__(self) -> None:
        for name, choice in (("envelope", self.envelope), ("regions", self.regions)):
            if not isinstance(choice, bool) and not (isinstance(choice, str) and choice == "auto"):
                raise InputError(f"`{name}` is {shown(choice)}; expected True, False or `auto`")
        if self.regions is True and (self.formulation or self.envelope is True):
            other = "a formulation is given" if self.formulation else "`envelope` is True"
            raise InputError(f"`regions` is True, and {other}; a network that is written by its regions has neither: give one of the two")
        if not 0 <= self.threshold_gap <= 0.1:
            raise InputError(f"`threshold_gap` is {shown(self.threshold_gap)}; expected a number from 0 to 0.1")

    @property
    def wanted_regions(self) -> RegionsChoice:
        """Whether the network is written by its regions: not with ``"auto"`` if a formulation is given, or an envelope is asked for."""
        return False if self.regions == "auto" and (self.formulation or self.envelope is True) else self.regions

    @staticmethod
    def of(given: Formulation | EmbeddingSettings | None) -> EmbeddingSettings:
        """Return settings as they are, and a formulation as settings; raises `InputError` for anything else."""
        if isinstance(given, EmbeddingSettings):
            return given
        if isinstance(given, str):
            raise InputError(f"the formulation is `{given}`; expected a mapping such as {{'relu': {given!r}}}, or `mn.EmbeddingSettings`")
        return EmbeddingSettings(given)
