"""A comparison holds every method to the same share, measures on the hold-out and prints what it measured."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError
from mipnet.pruning.labelled_images import LabelledImages
from mipnet.pruning.rivals.comparison import ComparisonSettings, compare
from mipnet.pruning.rivals.comparison_table import ComparisonRow, ComparisonTable
from mipnet.pruning.rivals.registry import RIVALS, usable
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import at_share, same_counts
from tests.pruning.nets import case, mlp


@pytest.fixture(scope="module")
def given():
    network, gates, images, labels = case(mlp, samples=60)
    return network, gates, LabelledImages(images[:30], labels[:30]), LabelledImages(images[30:], labels[30:])


def pair(labelled):
    return labelled.images, labelled.labels


def mask(gates):
    g = np.random.default_rng(2)
    return xr.Dataset({gate.name: (gate.dim, g.permutation(np.arange(gate.units) < 4)) for gate in gates})


def test_masks_against_every_rival_at_the_same_share(given):
    network, gates, seen, holdout = given
    ours = mask(gates)
    table = compare(network, gates, ours, seen, holdout, settings=ComparisonSettings(repeats=3))
    target = pruned_share(network, gates, ours)
    assert table.targets == (target,)
    assert table.reference == mn.accuracy(network, *pair(holdout))
    assert len(table.rows) == 1 + 2 * len(usable())
    assert table.rows[0].accuracy == mn.accuracy(network, *pair(holdout), gates, ours)
    for row in table.rows:
        assert row.share == pytest.approx(target) if row.ranking != "global" else row.share >= target - 1e-12
        assert row.seconds >= 0
    fisher = RIVALS["fisher"].scores(network, gates, *pair(seen))
    by_hand = {"layers": same_counts(gates, fisher, ours), "global": at_share(network, gates, fisher, target)}
    found = {row.ranking: row.accuracy for row in table.rows if row.rival == "fisher"}
    assert found == {ranking: mn.accuracy(network, *pair(holdout), gates, m) for ranking, m in by_hand.items()}
    drawn = [same_counts(gates, RIVALS["random"].scores(network, gates, *pair(seen), seed=s), ours) for s in range(3)]
    accuracies = [mn.accuracy(network, *pair(holdout), gates, m) for m in drawn]
    row = next(row for row in table.rows if row.rival == "random" and row.ranking == "layers")
    assert (row.accuracy, row.spread) == pytest.approx((np.mean(accuracies), np.std(accuracies)))


@pytest.mark.sweep
def test_scores_at_several_shares(given):
    network, gates, seen, holdout = given
    scores, settings = RIVALS["taylor"].scores(network, gates, *pair(seen)), ComparisonSettings(normalize="l2")
    table = compare(network, gates, scores, seen, holdout, rivals=["taylor", "random"], shares=[0.2, 0.5], settings=settings)
    assert table.targets == (0.2, 0.5)
    for target in table.targets:
        own, rival = table.best("mip", target), table.best("taylor", target)
        assert own.share >= target
        assert own.accuracy <= rival.accuracy  # the rival has the same scores and two rankings
        assert table.beaten(target)["taylor"] == (own.accuracy == rival.accuracy)
        assert set(table.beaten(target)) == {"taylor", "random"}
    again = compare(network, gates, scores, seen, holdout, rivals=["taylor", "random"], shares=[0.2, 0.5], settings=settings)
    assert [r.accuracy for r in again.rows] == [r.accuracy for r in table.rows]


def test_options_reach_the_rival(given):
    network, gates, seen, holdout = given
    before = case(mlp, seed=5)[0]
    plain, initial = (
        compare(network, gates, mask(gates), seen, holdout, rivals=["snip"], settings=ComparisonSettings(options=options))
        for options in ({}, {"snip": {"at": before}})
    )
    scores = RIVALS["snip"].scores(before, gates, *pair(seen))
    assert initial.rows[1].accuracy == mn.accuracy(network, *pair(holdout), gates, same_counts(gates, scores, mask(gates)))
    assert plain.rows[0].accuracy == initial.rows[0].accuracy


def test_a_table_as_markdown_dataset_and_dictionary():
    rows = (ComparisonRow("mip", "given", 0.5, 0.5, 97.5, 0.0, 1.0), ComparisonRow("random", "layers", 0.5, 0.51, 91.25, 2.5, 0.25))
    table = ComparisonTable(rows, "mip", 98.0, 7, 1000)
    text = table.to_markdown()
    assert "98.00 % of 1,000 images (seed 7)" in text
    assert "| **mip** | given | 50.0 % | 97.50 % | 0.50 | 1.00 |" in text
    assert "| random | layers | 51.0 % | 91.25 % ± 2.50 | 6.75 | 0.25 |" in text
    assert text.index("mip") < text.index("random")
    data = table.to_dataset()
    assert data["accuracy"].values.tolist() == [97.5, 91.25]
    assert data["rival"].values.tolist() == ["mip", "random"]
    assert data.attrs["reference"] == 98.0
    assert table.to_dict()["rows"][1]["spread"] == 2.5
    assert table.beaten(0.5) == {"random": True}
    with pytest.raises(InputError, match="no row"):
        table.best("fisher", 0.5)


def test_bad_comparisons_are_one_clear_error(given):
    network, gates, seen, holdout = given
    ours = mask(gates)
    scores = ours.astype(float)
    mixed = ours.assign(fc1=ours["fc1"].astype(float))
    for masks, options in (
        (ours, {"shares": [0.5]}),
        (scores, {}),
        (mixed, {"shares": [0.5]}),
        (ours, {"rivals": ["best"]}),
        (ours, {"rivals": ["random"], "settings": ComparisonSettings(name="random")}),
        (ours, {"rivals": ["random"], "settings": ComparisonSettings(options={"fisher": {}})}),
        (ours[["fc1"]], {}),
    ):
        with pytest.raises(InputError, match=r"expected|options"):
            compare(network, gates, masks, seen, holdout, **options)
