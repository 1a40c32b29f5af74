"""The YAML file of `mipnet activation`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mipnet.app.files.certify_file import InputSetFile
from mipnet.app.files.values import ListAsTuple, Name, Section, choice, expects, value_error

ElementIndex = tuple[Annotated[int, Field(ge=0)], ...]


class UnitSpec(Section):
    """A ``class``, by its number, for its score; or a ``node`` and an ``element`` of its value: its number, or one number per axis."""

    class_: Annotated[int | None, Field(ge=0), expects("a whole number of at least 0")] = Field(None, alias="class")
    node: Name | None = None
    element: Annotated[int | ElementIndex, ListAsTuple, expects("a whole number, or a list with one for each axis, such as [0, 2, 2]")] = 0

    @model_validator(mode="after")
    def _class_or_node(self) -> UnitSpec:
        if (self.class_ is None) == (self.node is None):
            given = "neither of `class` and `node` is" if self.node is None else "both `class` and `node` are"
            raise value_error(f"{given} given; expected one of them, such as `{{class: 3}}` or `{{node: fc1, element: 7}}`")
        return self

    @property
    def unit(self) -> int | tuple[str, int | tuple[int, ...]]:
        """The unit, as `mipnet.activation_maximisation` takes it."""
        return self.class_ if self.class_ is not None else (str(self.node), self.element)


class ActivationFile(InputSetFile):
    """A YAML file for `mipnet activation`: a network, an input set, and the class or the unit whose value is maximised."""

    task: Annotated[Literal["activation"], choice("activation")]
    unit: UnitSpec
