"""Importance by class: the mean of what each class says by itself, here and in other processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.backend import Status
from mipnet.errors import DataError
from mipnet.pruning.importance import decoupled_parts
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.decoupled_parts import SolvedPart
from mipnet.pruning.importance.program import Importance
from tests.pruning.importance.test_program import tiny_mlp

FORMULATIONS = ({"relu": "big-m"}, {"relu": "frozen"})


def question(formulation: dict[str, str]) -> Importance:
    g = np.random.default_rng(3)
    network = tiny_mlp(g)
    return Importance(network, g.uniform(0, 1, (5, 5)), [2, 0, 2, 0, 2], formulation=formulation)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_scores_are_the_mean_of_those_of_each_class(formulation: dict[str, str]) -> None:
    asked = question(formulation)
    images, labels = np.asarray(asked.images), np.asarray(asked.labels)
    own = [mn.importance(asked.network, images[labels == c], labels[labels == c], formulation=formulation) for c in (0, 2)]
    found = by_class(asked)
    assert [(part.label, part.samples) for part in found.parts] == [(0, 2), (2, 3)]
    assert found.scores is not None
    for gate in found.gates:
        np.testing.assert_allclose(found.scores[gate.name], np.mean([one.scores[gate.name] for one in own], axis=0), atol=1e-9)
    assert found.result.objective == pytest.approx(np.mean([one.result.objective for one in own]))
    assert found.result.bound <= found.result.objective + 1e-9
    assert found.result.verified
    assert found.result.status is Status.OPTIMAL


def test_finished_parts_are_not_solved_again() -> None:
    asked, told = question({"relu": "frozen"}), {}
    whole = by_class(asked, on_done=told.__setitem__)
    again = by_class(asked, finished={0: told[0]}, on_done=lambda label, _: told.pop(label))
    assert list(told) == [0]
    xr.testing.assert_identical(again.scores, whole.scores)


def test_one_bad_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = question({"relu": "frozen"}), {}
    by_class(asked, on_done=told.__setitem__)

    def changed(**changes: object) -> dict[int, SolvedPart]:
        return told | {2: replace(told[2], result=replace(told[2].result, **changes))}

    assert not by_class(asked, finished=changed(verified=False)).result.verified
    pointless = by_class(asked, finished=changed(x=None, objective=None, verified=False, status=Status.TIME_LIMIT))
    assert (pointless.scores, pointless.result.objective, pointless.result.status) == (None, None, Status.TIME_LIMIT)
    monkeypatch.setattr(decoupled_parts, "solve", lambda *_, **__: replace(told[0].result, status=Status.INTERRUPTED, interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        by_class(asked)


def test_labels_are_checked_before_anything_is_solved() -> None:
    with pytest.raises(DataError):
        by_class(replace(question({"relu": "frozen"}), labels=[0, 1, 2, 3, 9]))


@pytest.mark.sweep
def test_another_process_finds_the_same_and_a_warning_of_many_programs_is_given_once() -> None:
    asked, found = replace(question({"relu": "big-m"}), kind="binary"), []
    for workers in (0, 1):
        with pytest.warns(RuntimeWarning, match="binary scores under the paper's bounds") as given:
            found.append(by_class(asked, workers=workers))
        assert len(given) == 1
        assert all(part.warnings == (str(given[0].message),) for part in found[-1].parts)
    here, there = found
    xr.testing.assert_allclose(here.scores, there.scores, atol=1e-9)
    assert [p.result.objective for p in there.parts] == pytest.approx([p.result.objective for p in here.parts])
