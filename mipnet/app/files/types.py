"""The types of single values in a YAML file; an error under each of them says in plain words what was expected."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """A mapping of the file: unknown keys are errors, values keep their type (True is not 1), and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="null")


def says(template: str, **context: Any) -> PydanticCustomError:
    """The error that a validator raises, in these words."""
    return PydanticCustomError("expected", template, context)


def expects(words: str) -> WrapValidator:
    """A validator under which every error of a field reads ``expected <words>``, unless a part of it says so already."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if any(inner["loc"] and inner["type"] == "expected" for inner in error.errors(include_url=False)):
                raise
            raise says("expected {words}", words=words) from None

    return WrapValidator(check)


def choice(*names: str) -> WrapValidator:
    """`expects`, for a field with a few words to choose from."""
    *some, last = (f"`{name}`" for name in names)
    return expects(f"{', '.join(some)} or {last}" if some else last)


def as_tuple(value: Any) -> Any:
    """A list as a tuple: YAML has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("ends in the wrong order")
    return ends


Text = Annotated[str, Field(min_length=1), expects("a string that is not empty")]
Whole = Annotated[int, Field(ge=0), expects("a whole number of at least 0")]
Count = Annotated[int, Field(ge=1), expects("a whole number of at least 1")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), expects("a number greater than 0")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), expects("a number of at least 0")]
Tuple = BeforeValidator(as_tuple)
Layer = Annotated[dict[str, Any], expects("a mapping with `name`, `type` and arguments")]
Option = Annotated[bool | int | float | str, expects("a number, a string, true or false")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Clip = Annotated[tuple[Number, Number], Tuple, AfterValidator(_ordered), expects("two numbers, the smaller one first, such as [0, 1]")]
Names = tuple[Annotated[str, Field(min_length=1)], ...]
