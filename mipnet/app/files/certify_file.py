"""What the YAML files of `reach`, `agree`, `compress`, `distortion` and `margin` share."""

from __future__ import annotations

from pydantic import Field, model_validator

from mipnet.app.files.base import NetworkFile
from mipnet.app.files.sections import BoxSpec, RegionSpec, RobustSpec
from mipnet.app.files.values import MemorySize, NotNegative, Seconds, Section, SolverOptions, Text, Whole, value_error
from mipnet.errors import InputError

INPUT_SET_EXPECTED = "expected either `region`, around an image, or `box`, with `lower` and `upper`"


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


class InputSetFile(CertifyFile):
    """A file whose input set is either ``region``, around an image, or ``box``."""

    region: RegionSpec | None = None
    box: BoxSpec | None = None

    @model_validator(mode="after")
    def _one_input_set(self) -> InputSetFile:
        if (self.region is None) == (self.box is None):
            given = "neither of `region` and `box` is" if self.box is None else "both `region` and `box` are"
            raise value_error(f"{given} given; {INPUT_SET_EXPECTED}")
        return self

    @property
    def input_set(self) -> RegionSpec | BoxSpec:
        """The ``region`` or the ``box``."""
        given = self.box if self.region is None else self.region
        if given is None:
            raise InputError(INPUT_SET_EXPECTED)
        return given


class ImageFile(CertifyFile):
    """A file about the class of an image; ``robust`` says which class should stay the largest."""

    region: RegionSpec
    robust: RobustSpec = RobustSpec()
