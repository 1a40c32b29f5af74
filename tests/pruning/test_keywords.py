"""A misspelt keyword of a public function or class of pruning is one clear error, which suggests the right one."""

from __future__ import annotations

import re
from typing import Any

import pytest

import mipnet as mn
from mipnet.errors import ArgumentError

MISSPELT = {
    "importance": ("wieght", "weight"),
    "Importance": ("formulations", "formulation"),
    "Objective": ("normalise", "normalize"),
    "PaperBounds": ("epsilom", "epsilon"),
    "SolveSettings": ("option", "options"),
    "weight_path": ("time_limits", "time_limit"),
    "spaced_weights": ("point", "points"),
    "make_masks": ("treshold", "threshold"),
    "random_masks": ("sed", "seed"),
    "critical_masks": ("score", "scores"),
    "accuracy": ("label", "labels"),
    "prune": ("treshold", "threshold"),
    "export": ("pat", "path"),
    "measure": ("repeat", "repeats"),
    "prune_stepwise": ("share", "shares"),
    "train": ("epoch", "epochs"),
    "fine_tune": ("epoch", "epochs"),
    "TrainingSettings": ("optimiser", "optimizer"),
    "compare": ("rival", "rivals"),
    "ComparisonSettings": ("repeat", "repeats"),
    "LabelledImages": ("label", "labels"),
    "rival": ("sources", "source"),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_keyword_is_suggested(name: str) -> None:
    function: Any = getattr(mn, name)
    wrong, right = MISSPELT[name]
    with pytest.raises(ArgumentError, match=re.escape(f"`{name}` has no argument `{wrong}`; did you mean `{right}`?")):
        function(**{wrong: 5})


def test_every_public_name_of_pruning_is_here() -> None:
    callables = {name for name, module in mn._WHERE.items() if module.startswith("mipnet.pruning.")}
    assert callables - set(MISSPELT) == {"RIVALS", "Scores", "Footprint"}
