"""Importance questions from flat options: those of the objective and of the published bounds are sorted out by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance


def ask(network: Any, images: Any, labels: Any, **options: Any) -> Importance:
    """`Importance` with ``weight``, ``loss``, ``normalize``, ``layers``, ``pattern`` and ``epsilon`` beside its own arguments."""
    return Importance(network, images, labels, **_grouped(Objective(), PaperBounds(), options))


def changed(question: Importance, **options: Any) -> Importance:
    """A question with other options, given as to `ask`."""
    return replace(question, **_grouped(question.objective, question.paper or PaperBounds(), options))


def _grouped(objective: Objective, paper: PaperBounds, options: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in options.items() if name not in _names(Objective) | _names(PaperBounds)}
    if weighed := _of(Objective, options):
        own["objective"] = replace(objective, **weighed)
    if published := _of(PaperBounds, options):
        assert options.get("bounds", "paper") == "paper"
        own["bounds"] = replace(paper, **published)
    return own


def _of(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _names(kind)}


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}
