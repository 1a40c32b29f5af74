"""The one-line messages for wrong keys and wrong values: the place in the file, the key, what was given and what was expected."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mipnet.app.files.values import Section
from mipnet.app.files.yaml_source import Keys, Source, shown

MAPPING_ERRORS = ("model_type", "model_attributes_type", "dict_type")
"""The error types of pydantic for a value that should be a mapping."""

SIMILARITY_MIN = 0.7
"""A known key is suggested if its similarity to the unknown one, by `difflib`, is at least this."""


def first_error_line(kind: type[Section], source: Source, error: ValidationError) -> str:
    """Return the message for the error to report first: an unknown key, or else the first error of the file."""
    return _line(kind, source, min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"))


def _line(kind: type[Section], source: Source, error: ErrorDetails) -> str:
    keys: Keys = error["loc"]
    start = f"{source.at(keys)}: {'.'.join(map(str, keys))}: "
    got, message = f"got {shown(error['input'])}; ", error["msg"]
    if error["type"] == "extra_forbidden":
        return f"{start}unknown key; {suggestion(str(keys[-1]), known_keys(kind, keys[:-1]))}"
    if error["type"] == "missing":
        return f"{start}this key is missing"
    if error["type"] in MAPPING_ERRORS:
        return f"{start}{got}expected a mapping with {', '.join(known_keys(kind, keys))}"
    if error["type"] == "expected" and not message.startswith("expected"):
        return f"{start}{'' if isinstance(error['input'], dict) else got}{message}"
    return f"{start}{got}{message.replace('Input should be', 'expected', 1)}"


def known_keys(kind: type[Section], keys: Keys) -> list[str]:
    """Return the keys that the mapping at these keys may have."""
    model: Any = kind
    for key in keys:
        field = getattr(model, "model_fields", {}).get(str(key))
        types = field and (field.annotation, *get_args(field.annotation))
        model = next((part for part in types or () if hasattr(part, "key_names")), None)
    return model.key_names() if model is not None else []


def suggestion(given: str, known: list[str]) -> str:
    """Return ``did you mean ...?`` for a misspelt word, or else the words that are known."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=SIMILARITY_MIN)
    return f"did you mean `{close[0]}`?" if close else f"expected one of {', '.join(known)}"
