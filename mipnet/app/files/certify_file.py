"""What the YAML files of `reach`, `agree`, `compress`, `distortion`, `margin`, `activation` and `counterfactual` share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from mipnet.app.files.base import NetworkFile
from mipnet.app.files.sections import BoxSpec, RegionSpec, RobustSpec
from mipnet.app.files.values import (
    FiniteNumber,
    ListAsTuple,
    MemorySize,
    NotNegative,
    NumberOrList,
    Seconds,
    Section,
    SolverOptions,
    Text,
    Whole,
    expects,
    value_error,
)
from mipnet.errors import InputError

INPUT_SET_EXPECTED = (
    "expected either `region`, around an image, or `box`, with `lower` and `upper`, or `polytope`, with `matrix` and `rhs`, or `hull`, of"
    " the points in a `file`"
)

NumberRow = Annotated[tuple[FiniteNumber, ...], ListAsTuple]


class CertifySolveSpec(Section):
    """The solver for what bounds cannot decide, seconds and memory for everything, and the gap up to which the result is tightened.

    ``time_limit`` counts from the start of the run, reading included; null is no limit.
    """

    backend: Text = "highs"
    time_limit: Seconds | None = 60.0
    memory_limit: MemorySize | None = None
    tolerance: NotNegative = 1e-4
    seed: Whole = 0
    options: SolverOptions = Field(default_factory=dict)


class CertifyFile(NetworkFile):
    """A file about a network over an input set, whose result is certified."""

    solve: CertifySolveSpec = CertifySolveSpec()


class PolytopeSpec(Section):
    """All inputs x with ``matrix @ x <= rhs``, between ``lower`` and ``upper``: one number for all inputs, or one per input."""

    matrix: Annotated[tuple[NumberRow, ...], ListAsTuple, expects("a list of rows, such as [[1, 1]], with one number per input")]
    rhs: Annotated[NumberRow, expects("a list with one number per row of the matrix")]
    lower: NumberOrList | None = None
    upper: NumberOrList | None = None


class HullSpec(Section):
    """The convex hull of the points in a ``file``: .csv with a line of names, or .npy; and all inputs within ``enlarge`` of it."""

    relative_to_file: ClassVar[tuple[str, ...]] = ("file",)

    file: Text
    enlarge: NumberOrList = 0.0


WrittenSet = RegionSpec | BoxSpec | PolytopeSpec | HullSpec
"""The sections that stand for an input set."""


def only_set(*given: WrittenSet | None) -> WrittenSet | None:
    """Return the only input set that is given, or None; raises an error for several."""
    found = [each for each in given if each is not None]
    if len(found) > 1:
        raise value_error(f"{len(found)} input sets are given; {INPUT_SET_EXPECTED}")
    return found[0] if found else None


class InputSetFile(CertifyFile):
    """A file with one input set: ``region``, around an image, or ``box``, ``polytope`` or ``hull``."""

    region: RegionSpec | None = None
    box: BoxSpec | None = None
    polytope: PolytopeSpec | None = None
    hull: HullSpec | None = None

    @model_validator(mode="after")
    def _one_input_set(self) -> InputSetFile:
        if only_set(self.region, self.box, self.polytope, self.hull) is None:
            raise value_error(f"neither of `region` and `box` is given; {INPUT_SET_EXPECTED}")
        return self

    @property
    def input_set(self) -> WrittenSet:
        """The section of the input set."""
        given = only_set(self.region, self.box, self.polytope, self.hull)
        if given is None:
            raise InputError(INPUT_SET_EXPECTED)
        return given


class ImageFile(CertifyFile):
    """A file about the class of an image; ``robust`` says which class should stay the largest."""

    region: RegionSpec
    robust: RobustSpec = RobustSpec()
