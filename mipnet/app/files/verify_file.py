"""The YAML file of `mipnet verify`: a network and a property, as a .vnnlib file or as robustness around an image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mipnet.app.files.base import NetworkFile
from mipnet.app.files.sections import RegionSpec, RobustSpec
from mipnet.app.files.values import MemorySize, Seconds, Section, SolverOptions, Text, Whole, choice
from mipnet.errors import InputError


class VerifySolveSpec(Section):
    """The solver for what bounds cannot decide, seconds and memory for everything, and a second solver that has to refute as well.

    ``time_limit`` counts from the start of the run, reading included; null is no limit.
    """

    backend: Text = "highs"
    time_limit: Seconds | None = 60.0
    memory_limit: MemorySize | None = None
    cross_check: Text | None = None
    seed: Whole = 0
    options: SolverOptions = Field(default_factory=dict)


class VerifyFile(NetworkFile):
    """A YAML file for `mipnet verify`: a network, and either ``property`` or ``region`` with ``robust``."""

    relative_to_file: ClassVar[tuple[str, ...]] = ("property_file",)

    task: Annotated[Literal["verify"], choice("verify")]
    property_file: Text | None = Field(None, alias="property")
    region: RegionSpec | None = None
    robust: RobustSpec | None = None
    solve: VerifySolveSpec = VerifySolveSpec()

    @property
    def property_source(self) -> str | RegionSpec:
        """The path of a .vnnlib file, or the ``region``; raises `InputError` if both are missing."""
        given = self.region if self.property_file is None else self.property_file
        if given is None:
            raise InputError("this key is missing; expected the path of a .vnnlib file, or `region` (and `robust`)")
        return given

    def check(self) -> None:
        """Raise `InputError` unless there is either ``property`` or ``region``."""
        for name in ("region", "robust"):
            with self.blame(name):
                if self.property_file is not None and getattr(self, name) is not None:
                    raise InputError("`property` contains the input set already; leave this out, or leave `property` out")
        with self.blame("property" if self.robust is None else "region"):
            self.property_source  # noqa: B018  (raises if both are missing)
