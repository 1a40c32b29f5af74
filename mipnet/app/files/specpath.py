"""A path in a YAML file, ``solve.path: {lambda: [0.5, 20], points: 8}``: one parameter from one end to the other."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from mipnet.app.files.types import Part, Tuple, expects, says


def two_ends(ends: tuple[float, float]) -> tuple[float, float]:
    """The ends, which must differ."""
    if ends[0] == ends[1]:
        raise ValueError("equal ends")
    return ends


Ends = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    Tuple,
    AfterValidator(two_ends),
    expects("two different numbers greater than 0, such as [0.5, 20]"),
]


class PathSpec(Part):
    """Many values of one parameter, from the first to the last: ``lambda`` is the weight of the loss, spaced by equal factors."""

    lambda_: Ends | None = Field(None, alias="lambda")
    points: Annotated[int, Field(ge=2), expects("a whole number of at least 2")] = 8

    @model_validator(mode="after")
    def _one_parameter(self) -> PathSpec:
        if len(self.given) != 1:
            raise says("expected one parameter, such as `lambda: [0.5, 20]`")
        return self

    @property
    def given(self) -> dict[str, tuple[float, float]]:
        """First and last value by the parameter's name in the file."""
        named = {field.alias or name: getattr(self, name) for name, field in PathSpec.model_fields.items() if name != "points"}
        return {name: ends for name, ends in named.items() if ends is not None}

    @property
    def along(self) -> str:
        """The parameter's name in the file."""
        return next(iter(self.given))
