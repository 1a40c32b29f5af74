"""The types of single values in a YAML file.  The error message of each type says what was expected."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from mipnet.errors import InputError
from mipnet.limits.memory import MEMORY_LIMIT_EXPECTED, bytes_of


class Section(BaseModel):
    """A mapping of the file.  Unknown keys are errors, values keep their type (True is not 1), and nothing changes later.

    ``relative_to_file`` names the keys that hold paths relative to the file, ``relative_to_start`` those that hold paths relative to the
    folder that mipnet is started in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="null")

    relative_to_file: ClassVar[tuple[str, ...]] = ()
    relative_to_start: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def key_names(cls) -> list[str]:
        """Return the keys that the mapping may have, as they are written in the file."""
        return [field.alias or name for name, field in cls.model_fields.items()]


def value_error(message: str) -> PydanticCustomError:
    """Return the error that a validator raises, with this message."""
    return PydanticCustomError("expected", "{message}", {"message": message})


def expects(words: str) -> WrapValidator:
    """Return a validator that turns every error of a field into ``expected <words>``, unless a part of the field has such an error."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if any(inner["loc"] and inner["type"] == "expected" for inner in error.errors(include_url=False)):
                raise
            raise value_error(f"expected {words}") from None

    return WrapValidator(check)


def choice(*names: str) -> WrapValidator:
    """Return the validator `expects` for a field with a few words to choose from."""
    *first, last = (f"`{name}`" for name in names)
    return expects(f"{', '.join(first)} or {last}" if first else last)


def as_tuple(value: Any) -> Any:
    """Return a list as a tuple, because YAML has no tuples; other values are returned as they are."""
    return tuple(value) if isinstance(value, list) else value


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("ends in the wrong order")
    return ends


def _memory_size(given: float | str) -> float | str:
    try:
        bytes_of(given)
    except InputError:
        raise value_error(f"expected {MEMORY_LIMIT_EXPECTED}") from None
    return given


Text = Annotated[str, Field(min_length=1), expects("a string that is not empty")]
Whole = Annotated[int, Field(ge=0), expects("a whole number of at least 0")]
Count = Annotated[int, Field(ge=1), expects("a whole number of at least 1")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), expects("a number greater than 0")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), expects("a number of at least 0")]
MemorySize = Annotated[int | float | str, expects(MEMORY_LIMIT_EXPECTED), AfterValidator(_memory_size)]
ListAsTuple = BeforeValidator(as_tuple)
LayerMapping = Annotated[dict[str, Any], expects("a mapping with `name`, `type` and arguments")]
SolverOption = Annotated[bool | int | float | str, expects("a number, a string, true or false")]
SolverOptions = Annotated[dict[str, SolverOption], expects("a mapping with the solver's own options, by its own names")]
FiniteNumber = Annotated[float, Field(allow_inf_nan=False)]
NumberOrList = Annotated[FiniteNumber | tuple[FiniteNumber, ...], ListAsTuple, expects("a number, or a list with one number per input")]
ValidRange = Annotated[
    tuple[FiniteNumber, FiniteNumber],
    ListAsTuple,
    AfterValidator(_ordered),
    expects("two numbers, the smaller one first, such as [0, 1]"),
]
NameList = tuple[Annotated[str, Field(min_length=1)], ...]
