"""The types of single values in a YAML file.  The error message of each type says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mipnet.errors import InputError, meant
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


def key_error(section: type[BaseModel], key: str, value: Any, message: str) -> ValidationError:
    """Return the error that a validator of a whole section raises about one of its keys, with this message."""
    return ValidationError.from_exception_data(section.__name__, [InitErrorDetails(type=value_error(message), loc=(key,), input=value)])


def expects(words: str, names: Sequence[str] = ()) -> WrapValidator:
    """Return a validator that turns every error of a field into ``expected <words>``, unless a part of the field has such an error.

    A value that is like one of the ``names``, or like a number, is answered with what may be meant.
    """

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if any(inner["loc"] and inner["type"] == "expected" for inner in error.errors(include_url=False)):
                raise
            hint = meant(value, names) if isinstance(value, str) else ""
            if not hint and "number" in words:
                hint = number_hint(value) or decimal_comma_hint(value, 2 if words.startswith("two numbers") else None)
            if "seconds" in words and (value in (math.inf, "none", "None", "inf", "infinity", "unlimited")):
                hint = "; leave the key out, or write null, for the default or no limit"
            if not hint and "shares" in words:
                hint = decimal_comma_hint(value)
            if words.startswith("a string") and isinstance(value, int | float):
                hint = "; put it in quotes"
            raise value_error(f"expected {words}{hint}") from None

    check.words = words  # type: ignore[attr-defined]
    return WrapValidator(check)


def choice(*names: str) -> WrapValidator:
    """Return the validator `expects` for a field with a few words to choose from."""
    *first, last = (f"`{name}`" for name in names)
    return expects(f"{', '.join(first)} or {last}" if first else last, names)


NUMBER_HINTS = (
    (r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", "write it without quotes"),
    (r"[-+]?\d*,\d+", "write a decimal with a point"),
    (r"[-+]?\d+([_' ,]\d+)+", "write it without separators"),
    (r"[\u2212\u2013]\s*\d[\d.]*", "write the minus sign as -"),
    (r"[-+]?\d[\d.]*\s*%", "write a share of 1, such as 0.05"),
    (r"[-+]?\d[\d.]*\s*/\s*\d[\d.]*", "write the quotient as a decimal"),
    (r"[-+]?\d[\d.]*(\s*[A-Za-z\u00b5]+|(:\d+)+)", "write the number alone, without a unit"),
)
"""What to write for a string that looks like a number."""


def number_hint(value: Any) -> str:
    """Return what to write in place of a string that is meant as a number, as the end of a message; empty for anything else."""
    text = value.strip() if isinstance(value, str) else ""
    return next((f"; {words}" for pattern, words in NUMBER_HINTS if re.fullmatch(pattern, text)), "")


def decimal_comma_hint(values: Any, wanted: int | None = None) -> str:
    """Return what to write in place of a list in which decimal commas seem to have split numbers, as the end of a message.

    ``[0,5, 1]`` holds three numbers in YAML.  The hint is given for a list that is too long by no more than its pairs of whole numbers, or,
    if no length is ``wanted``, for a list of such pairs that begin with 0.
    """
    given = list(values) if isinstance(values, list | tuple) else []
    whole = [isinstance(each, int | float) and not isinstance(each, bool) and each == each // 1 for each in given]
    pairs, k = [], 0
    while k + 1 < len(given):
        split = whole[k] and whole[k + 1] and given[k + 1] >= 0
        pairs += [(given[k], given[k + 1])] if split else []
        k += 2 if split else 1
    likely = 0 < len(given) - wanted <= len(pairs) if wanted is not None else bool(pairs) and pairs == [(0, b) for _, b in pairs if b]
    if not likely or (wanted is None and 2 * len(pairs) != len(given)):
        return ""
    return f"; is there a decimal comma? write a decimal with a point, such as {pairs[0][0]:.0f}.{pairs[0][1]:.0f}"


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


def _no_zero(text: str) -> str:
    if "\0" in text:
        raise value_error("it holds the character U+0000; expected a string without it")
    return text


Text = Annotated[str, Field(min_length=1), expects("a string that is not empty"), AfterValidator(_no_zero)]
Whole = Annotated[int, Field(ge=0), expects("a whole number of at least 0")]
Count = Annotated[int, Field(ge=1), expects("a whole number of at least 1")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), expects("a number greater than 0")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), expects("a number of at least 0")]
MemorySize = Annotated[int | float | str, expects(MEMORY_LIMIT_EXPECTED), AfterValidator(_memory_size)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), expects("a number of seconds greater than 0, such as 60")]
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
Name = Annotated[str, Field(min_length=1), BeforeValidator(lambda v: str(v) if type(v) is int else v), expects("a name, as a string")]
"""A name; whole numbers, as `torch.nn.Sequential` gives them to its parts, are names as well."""

NameList = tuple[Name, ...]
