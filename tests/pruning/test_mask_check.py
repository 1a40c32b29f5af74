"""A mask that does no better than random ones is named, in every result that has one; a good mask is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_network
from mipnet.limits.result_warnings import collected_warnings
from mipnet.network.gates import Gate
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.program import warn_of_solve
from mipnet.pruning.smaller.mask_check import warn_of_masks
from mipnet.readers.data import Dataset, select

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def network() -> mn.Network:
    return read_network(load_spec(EXAMPLES / "digits.yaml"))


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return mn.load("digits", split="test")


@pytest.fixture(scope="module")
def scores(network: mn.Network, held_out: Dataset) -> xr.Dataset:
    """Mean activations: simple, and far better than chance."""
    data = mn.load("digits")
    return mn.RIVALS["taylor"].score(network, mn.find_gates(network), data.images, data.labels)


def pruned(network: mn.Network, scores: xr.Dataset, share: float) -> xr.Dataset:
    gates = mn.find_gates(network)
    return mn.make_masks(network, gates, scores / max(float(each.max()) for each in scores.values()), {"params": share})


def worst_units(scores: xr.Dataset) -> xr.Dataset:
    """A mask that keeps only the units that matter least."""
    return xr.Dataset({name: scores[name] == scores[name].min() for name in scores})


def said(network: mn.Network, masks: xr.Dataset, data: Dataset) -> list[str]:
    with collected_warnings() as found:
        warn_of_masks(network, mn.find_gates(network), masks, data.images, data.labels)
    return found


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_nothing_is_said_of_a_good_mask(network: mn.Network, scores: xr.Dataset, held_out: Dataset, share: float) -> None:
    assert said(network, pruned(network, scores, share), held_out) == []


def test_a_random_mask_is_no_better_than_random_ones(network: mn.Network, scores: xr.Dataset, held_out: Dataset) -> None:
    masks = pruned(network, scores, 0.5)
    named = [said(network, mn.random_masks(masks, seed), held_out) for seed in range(100, 110)]
    assert sum(bool(each) for each in named) >= 8
    (text,) = max(named, key=len)
    assert text.startswith(
        "the mask does no better than random ones that remove as many units of each layer: with it the network names the"
    )
    assert " of 20 random masks of as many or more" in text


def test_a_mask_of_the_worst_units_is_no_better_than_chance(network: mn.Network, scores: xr.Dataset, held_out: Dataset) -> None:
    found = said(network, worst_units(scores), held_out)
    assert found[0].startswith("the masked network names the label of ")
    assert "no more than always naming the most frequent one would" in found[0]
    assert found[1].startswith("the mask does no better than random ones")


def test_a_mask_that_keeps_all_units_is_not_tested(network: mn.Network, scores: xr.Dataset, held_out: Dataset) -> None:
    assert said(network, xr.Dataset({name: scores[name] > -np.inf for name in scores}), held_out) == []


def test_the_test_is_the_same_every_time(network: mn.Network, scores: xr.Dataset, held_out: Dataset) -> None:
    masks = mn.random_masks(pruned(network, scores, 0.5), 100)
    assert said(network, masks, held_out) == said(network, masks, held_out)


# in results


def unscaled(data: Dataset) -> Dataset:
    return replace(data, images=data.images / 255)


def test_a_comparison_names_masks_and_images(network: mn.Network, scores: xr.Dataset, held_out: Dataset) -> None:
    gates: tuple[Gate, ...] = mn.find_gates(network)
    few = select(mn.load("digits"), per_class=2)
    good, bad = pruned(network, scores, 0.5), worst_units(scores)
    assert mn.compare(network, gates, good, few, held_out, rivals=["random"]).warnings == ()
    (chance, text) = mn.compare(network, gates, bad, few, held_out, rivals=["random"]).warnings
    assert chance.startswith("at 8")
    assert "% of the parameters: the masked network names the label of " in chance
    assert "% of the parameters: the mask does no better than random ones" in text
    assert mn.compare(network, gates, good, few, unscaled(held_out), rivals=["random"]).warnings[0].startswith("the images look unscaled")


def test_scores_name_images(network: mn.Network) -> None:
    data = mn.load("digits")
    few = select(data, per_class=1, pick="random", seed=0)
    assert mn.importance(network, few.images, few.labels, formulation={"relu": "frozen"}).warnings == ()
    many = unscaled(select(data, per_class=10))
    found = mn.importance(network, many.images, many.labels, formulation={"relu": "frozen"})
    assert found.warnings[0].startswith("the images look unscaled")


def test_a_solve_that_stopped_without_a_point_is_named(network: mn.Network) -> None:
    few = select(mn.load("digits"), per_class=1, pick="random", seed=0)
    found = mn.importance(network, few.images, few.labels, formulation={"relu": "frozen"}).result
    for status, named in ((mn.Status.TIME_LIMIT, True), (mn.Status.MEMORY_LIMIT, True), (mn.Status.INFEASIBLE, False)):
        with collected_warnings() as said:
            warn_of_solve(replace(found, objective=None, x=None, status=status), 1e-4)
        assert len(said) == named
        assert not named or said[0].startswith(f"the solve stopped ({status.value}) without a point")


@pytest.mark.sweep
def test_scores_name_a_solve_that_stopped(network: mn.Network) -> None:
    few = select(mn.load("digits"), per_class=1, pick="random", seed=0)
    question = mn.Importance(network, few.images, few.labels, bounds="sound")
    stopped = question.solve(limits=mn.Limits(nodes=1))
    assert stopped.result.status is mn.Status.NODE_LIMIT
    (text,) = stopped.warnings
    assert text.startswith("the solve stopped (node limit) with a gap of ")
    assert text.endswith(" %: the scores are those of the best point, not proven to be optimal")
    parts = by_class(question, limits=mn.Limits(nodes=1))
    assert len(parts.warnings) == len([part for part in parts.parts if part.result.status is mn.Status.NODE_LIMIT])
    assert all(text.startswith("program ") and "the solve stopped (node limit) with " in text for text in parts.warnings)


def test_a_path_of_steps_names_its_masks_and_images(network: mn.Network) -> None:
    data = select(mn.load("digits"), total=300)
    assert mn.prune_stepwise(network, data.images, data.labels, shares=[0.2, 0.4]).warnings == ()
    found = mn.prune_stepwise(network, data.images / 255, data.labels, shares=[0.2])
    assert found.warnings[0].startswith("the images look unscaled")
