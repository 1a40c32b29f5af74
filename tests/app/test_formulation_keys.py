"""``formulation`` in a YAML file: its keys are the layers that have formulations, its values their names, also those from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.base import load_as
from mipnet.app.files.compare_file import CompareFile
from mipnet.app.files.solve_file import load_spec
from mipnet.errors import SpecError
from mipnet.formulations import registry
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.registry import all_formulations
from mipnet.formulations.relu import POSITIVE_PART, PositivePart, link

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = str(EXAMPLES / "digits.yaml")


@dataclass(frozen=True, eq=False)
class HardSign(mn.Layer):
    """A layer of a user: 1 where the input is positive, else 0."""

    def shape(self, *inputs: tuple[int, ...]) -> tuple[int, ...]:
        return inputs[0]


@pytest.fixture
def outside() -> Iterator[None]:
    """An encoding of a layer of a user, and a formulation of a user for positive parts, which are forgotten after the test."""

    @mn.encoding(HardSign, "steps")
    def _(layer: HardSign, block: Block, x: Affine) -> Affine:
        raise NotImplementedError

    @link("mine")
    def two_rows(part: PositivePart) -> Affine:
        h = part.block.variable(part.suffix, part.h_lower, part.upper, where=part.own, value=lambda p: np.maximum(part.z.evaluate(p), 0))
        v = part.switch()
        part.block.rows(f"{part.tag}above", (h - part.z)[part.own], ">=")
        part.rows("below", h - part.z - v * part.lower, "<=", -part.lower)
        part.rows("off", h - v * part.upper, "<=")
        decided = part.own & ~part.undecided
        part.block.rows(f"{part.tag}equal", (h - part.z)[decided], "<=")
        return h

    yield
    del POSITIVE_PART.formulations["mine"]
    del registry._OWN_FORMULATIONS[HardSign]


def sets(text: str) -> list[str]:
    return [f"formulation={{{text}}}", "output=null"]


@pytest.mark.parametrize("kind", all_formulations())
def test_every_registered_name_is_taken(kind: str) -> None:
    for name in (*all_formulations()[kind], "auto"):
        parts = ", parts: 2" if name == "partition" else ""
        assert load_spec(DIGITS, sets(f"{kind}: {name}{parts}")).formulation.names[kind] == name


def test_names_from_outside_are_keys_and_values(outside: None) -> None:
    spec = load_spec(DIGITS, sets("hardsign: steps, relu: mine, leakyrelu: mine, clip: auto, bounds: sound"))
    assert spec.formulation.names == {"hardsign": "steps", "relu": "mine", "leakyrelu": "mine", "clip": "auto"}
    assert spec.resolved()["formulation"]["hardsign"] == "steps"
    compared = load_as(CompareFile, EXAMPLES / "compare.yaml", sets("hardsign: steps"))
    assert compared.solve_file().formulation.names == {"hardsign": "steps"}


def test_errors_and_the_schema_know_them(outside: None, capsys: pytest.CaptureFixture[str]) -> None:
    for text, message in (
        ("hardsing: steps", r"formulation\.hardsing: unknown key; did you mean `hardsign`\?"),
        ("hardsign: stepz", r"formulation\.hardsign: got 'stepz'; did you mean `steps`\?"),
        ("relu: minne", r"formulation\.relu: got 'minne'; did you mean `mine`\?"),
        (
            "maxpool2d: mine",
            r"formulation\.maxpool2d: got 'mine'; expected one of big-m.*; one of your own must be imported in this process",
        ),
    ):
        with pytest.raises(SpecError, match=message):
            load_spec(DIGITS, sets(text))
    assert main(["schema"]) == 0
    keys = json.loads(capsys.readouterr().out)["$defs"]["FormulationSpec"]["properties"]
    assert keys["hardsign"] == {"enum": ["steps", "auto"]}
    assert "mine" in keys["relu"]["enum"]


def test_after_the_test_nobody_knows_them() -> None:
    for text in ("hardsign: steps", "relu: mine"):
        with pytest.raises(SpecError):
            load_spec(DIGITS, sets(text))


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_a_run_is_written_with_a_formulation_from_outside(outside: None, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is exact, so the optimum is that of big-m."""
    found = []
    for name in ("mine", "big-m"):
        assert main(["solve", DIGITS, "--json", "--backend", backend, "--set", f"formulation.relu={name}", "--set", "output=null"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert all(each["verified"] for each in found)
    assert abs(found[0]["objective"] - found[1]["objective"]) <= 2e-4 * max(1, abs(found[1]["objective"]))
    assert main(["inspect", DIGITS, "--json", "--set", "formulation.relu=mine"]) == 0
    nodes = {each["name"]: each for each in json.loads(capsys.readouterr().out)["explanation"]["nodes"]}
    assert {nodes[name]["formulation"] for name in ("relu1", "relu2")} == {"mine"}
