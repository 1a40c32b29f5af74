"""The one-line messages for wrong keys and wrong values: the place in the file, the key, what was given and what was expected."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mipnet.app.files.values import Section
from mipnet.app.files.yaml_document import Keys
from mipnet.app.files.yaml_source import Source
from mipnet.errors import closest, shown

MAPPING_ERRORS = ("model_type", "model_attributes_type", "dict_type")
"""The error types of pydantic for a value that should be a mapping."""

KEYS_BY_OTHER_NAMES = {
    **dict.fromkeys(("path", "model", "weights", "filename"), ("file",)),
    **dict.fromkeys(("solver", "engine"), ("backend",)),
    **dict.fromkeys(("timeout", "seconds", "max_time", "limit"), ("time_limit",)),
    **dict.fromkeys(("epsilon", "eps", "delta"), ("radius",)),
    **dict.fromkeys(("lambda", "alpha", "penalty"), ("weight",)),
    **dict.fromkeys(("dataset", "images", "inputs"), ("data",)),
    **dict.fromkeys(("net", "onnx"), ("network",)),
    **dict.fromkeys(("spec", "vnnlib"), ("property",)),
    **dict.fromkeys(("shape", "size"), ("input_shape",)),
    **dict.fromkeys(("samples", "count", "number"), ("total",)),
    **dict.fromkeys(("low", "min"), ("lower",)),
    **dict.fromkeys(("high", "max"), ("upper",)),
}
"""The keys that other programs call by these names."""


def first_error_line(kind: type[Section], source: Source, error: ValidationError) -> str:
    """Return the message for the error to report first: an unknown key, or else the first error of the file."""
    return _line(kind, source, min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"))


def _line(kind: type[Section], source: Source, error: ErrorDetails) -> str:
    keys: Keys = error["loc"]
    start = f"{source.at(keys)}: {'.'.join(map(str, keys))}: " if keys else f"{source.name}: "
    got, message = f"got {in_yaml(error['input'])}; ", error["msg"]
    if error["type"] == "extra_forbidden":
        return f"{start}unknown key; {suggestion(str(keys[-1]), known_keys(kind, keys[:-1]))}"
    if error["type"] == "missing":
        return f"{start}this key is missing; expected {_expected(kind, keys)}"
    if error["type"] in MAPPING_ERRORS:
        hint = "; leave the key out, or write {}" if error["input"] is None else ""
        return f"{start}{got}expected {_mapping(known_keys(kind, keys))}{hint}"
    if error["type"] == "expected" and (not keys or not message.startswith("expected")):
        return f"{start}{'' if isinstance(error['input'], dict) else got}{message}"
    return f"{start}{got}{message.replace('Input should be', 'expected', 1)}"


def in_yaml(value: Any) -> str:
    """Return a value as messages show it, by the words of YAML."""
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else shown(value)


def _mapping(keys: list[str]) -> str:
    return f"a mapping with {', '.join(keys)}" if keys else "a mapping"


def _expected(kind: type[Section], keys: Keys) -> str:
    """Return what a key that is missing should hold."""
    if known := known_keys(kind, keys):
        return _mapping(known)
    above = _section(kind, keys[:-1])
    fields = {field.alias or name: field for name, field in getattr(above, "model_fields", {}).items()}
    field = fields.get(str(keys[-1]))
    words = [part.func.words for part in (field.metadata if field else ()) if hasattr(getattr(part, "func", None), "words")]
    return str(words[0]) if words else "a value"


def _section(kind: type[Section], keys: Keys) -> Any:
    """Return the class of the mapping at these keys, None if no class describes it."""
    model: Any = kind
    for key in keys:
        fields = {field.alias or name: field for name, field in getattr(model, "model_fields", {}).items()}
        field = fields.get(str(key))
        types = field and (field.annotation, *get_args(field.annotation))
        model = next((part for part in types or () if hasattr(part, "key_names")), None)
    return model


def known_keys(kind: type[Section], keys: Keys) -> list[str]:
    """Return the keys that the mapping at these keys may have."""
    model = _section(kind, keys)
    return model.key_names() if model is not None else []


def suggestion(given: str, known: list[str]) -> str:
    """Return ``did you mean ...?`` for a misspelt word, or else the words that are known."""
    found = closest(given, known) or next((name for name in KEYS_BY_OTHER_NAMES.get(given.casefold(), ()) if name in known), None)
    return f"did you mean `{found}`?" if found is not None else f"expected one of {', '.join(known)}"
