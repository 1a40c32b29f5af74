"""The section ``formulation`` of YAML files: one key per kind of layer with a registered formulation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails

from mipnet.app.files.key_errors import suggestion
from mipnet.app.files.values import Count, NotNegative, Section, Text, choice, value_error
from mipnet.app.tasks import IMPORT_HINT


class FormulationSpec(Section):
    """The formulation of each kind of layer, and the bounds that give the big-Ms.

    Besides the keys below, every kind of layer with a registered formulation is a key: the class name of the layer in lower case, such
    as ``relu`` or ``maxpool2d``.  Its value is the name of a registered formulation, or ``auto``.  ``parts`` is for ``relu: partition``,
    ``pattern`` for ``relu: frozen``.
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Text | None] = Field(init=False)

    parts: Count | None = None
    bounds: Annotated[Literal["paper", "sound", "interval", "crown", "alpha"], choice("paper", "sound", "interval", "crown", "alpha")] = (
        "paper"
    )
    pattern: Annotated[Literal["free", "upper", "paper"], choice("free", "upper", "paper")] = "free"
    epsilon: NotNegative = 1e-5

    @model_validator(mode="after")
    def _registered_names(self) -> FormulationSpec:
        given = self.__pydantic_extra__
        offered, errors = formulation_names() if given else {}, list[InitErrorDetails]()
        for kind, name in given.items():
            if kind not in offered:
                errors.append(InitErrorDetails(type="extra_forbidden", loc=(kind,), input=name))
            elif name is not None and name not in offered[kind]:
                known = suggestion(name, offered[kind])
                message = known if known.endswith("?") else f"{known}; {IMPORT_HINT}"
                errors.append(InitErrorDetails(type=value_error(message), loc=(kind,), input=name))
        if self.parts is not None and "partition" not in given.values():
            idle = value_error("`parts` is for formulation `partition`, and no layer has it; leave it out")
            errors.append(InitErrorDetails(type=idle, loc=("parts",), input=self.parts))
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    @property
    def names(self) -> dict[str, str | int]:
        """The formulation of each kind of layer, and parts, as far as they are given."""
        given: dict[str, str | int | None] = {**self.__pydantic_extra__, "parts": self.parts}
        return {key: value for key, value in given.items() if value is not None}

    @classmethod
    def key_names(cls) -> list[str]:
        """Return the kinds of layers with a registered formulation, and the other keys."""
        return [*formulation_names(), *super().key_names()]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        kinds = {kind: {"enum": names} for kind, names in formulation_names().items()}
        return schema | {"properties": kinds | schema["properties"], "additionalProperties": False}


def formulation_names() -> dict[str, list[str]]:
    """Return the formulations of each kind of layer, those that are registered now and those that the importance program has itself."""
    import mipnet.layers  # noqa: F401  (layers and their formulations register when they are imported)
    from mipnet.formulations.registry import all_formulations

    return {kind: [*names, "auto", *(["frozen"] if kind == "relu" else [])] for kind, names in all_formulations().items()}
