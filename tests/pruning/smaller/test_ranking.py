"""Rankings keep their budgets exactly, never empty a layer, and are what sorting by hand gives."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError
from mipnet.pruning.rivals.registry import RIVALS, usable
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import at_share, normalised, same_counts
from tests.pruning.nets import case, cnn, mlp, plain_cnn, residual


def scored(gates, seed=0):
    g = np.random.default_rng(seed)
    return xr.Dataset({gate.name: (gate.dim, g.uniform(0, 10, gate.units)) for gate in gates})


def masks_of(gates, *counts):
    return xr.Dataset({gate.name: (gate.dim, np.arange(gate.units) < n) for gate, n in zip(gates, counts, strict=True)})


def test_same_counts_keeps_the_best_of_each_layer():
    _, gates, _, _ = case(mlp)
    scores = scored(gates)
    masks = same_counts(gates, scores, masks_of(gates, 3, 0))
    assert [int(masks[n].sum()) for n in ("fc1", "fc2")] == [3, 1]  # never none
    for name in masks:
        assert set(np.flatnonzero(masks[name])) == set(np.argsort(-scores[name].values)[: int(masks[name].sum())])
    tied = scores * 0
    assert [int(m.sum()) for m in same_counts(gates, tied, masks_of(gates, 3, 2)).values()] == [3, 2]


@pytest.mark.parametrize("how", ["none", "mean", "l2", "max", "sum"])
def test_normalised(how):
    _, gates, _, _ = case(mlp)
    scores = scored(gates)
    scale = {"none": lambda s: 1, "mean": np.mean, "l2": lambda s: np.sqrt((s**2).sum()), "max": np.max, "sum": np.sum}[how]
    for name, values in normalised(gates, scores, how).items():
        assert values.values == pytest.approx(scores[name].values / scale(scores[name].values))
    zero = normalised(gates, scores * 0, how)
    assert float(zero["fc1"].max()) == 0


@pytest.mark.parametrize("family", [mlp, cnn, residual])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.6])
@pytest.mark.parametrize("kind", ["distinct", "tied"])
def test_at_share_prunes_unit_by_unit_until_the_share_is_reached(family, share, kind):
    network, gates, _, _ = case(family)
    scores = scored(gates) if kind == "distinct" else (scored(gates) > 5).astype(float)
    found = at_share(network, gates, scores, share)
    order = sorted((float(v), i, k, gate) for i, gate in enumerate(gates) for k, v in enumerate(scores[gate.name].values))
    masks = masks_of(gates, *(gate.units for gate in gates))
    for _, _, k, gate in order:  # by hand: the lowest score first, but never the last one of a layer
        if pruned_share(network, gates, masks) >= share:
            break
        if int(masks[gate.name].sum()) > 1:
            masks[gate.name].values[k] = False
    for gate in gates:
        assert np.array_equal(found[gate.name], masks[gate.name])


@pytest.mark.parametrize("name", usable())
@pytest.mark.parametrize("family", [mlp, plain_cnn])
def test_every_rival_keeps_both_budgets(family, name):
    network, gates, images, labels = case(family)
    like = same_counts(gates, scored(gates), masks_of(gates, *(gate.units // 2 for gate in gates)))
    share = pruned_share(network, gates, like)
    prepared = RIVALS[name].prepared(network, gates, images, labels, seed=1)
    ranked = [RIVALS[name].masks(network, gates, prepared, ranking=r, like=like, share=share, seed=1) for r in ("layers", "global")]
    assert [int(m.sum()) for m in ranked[0].values()] == [int(m.sum()) for m in like.values()]
    assert pruned_share(network, gates, ranked[0]) == pytest.approx(share, abs=1e-12)
    assert share <= pruned_share(network, gates, ranked[1]) <= share + 0.35
    assert all(int(m.sum()) >= 1 for m in ranked[1].values())


def test_bad_scores_and_shares_are_one_clear_error():
    network, gates, images, labels = case(mlp)
    scores = scored(gates)
    broken = scores.copy(deep=True)
    broken["fc1"].values[2] = np.nan
    like = masks_of(gates, 2, 2)
    rival = RIVALS["fisher"]
    for call in (
        lambda: same_counts(gates, scores[["fc1"]], like),
        lambda: same_counts(gates, scores.isel(fc1_unit=slice(3)), like),
        lambda: same_counts(gates, broken, like),
        lambda: same_counts((), scores, like),
        lambda: normalised(gates, scores, "median"),
        lambda: at_share(network, gates, scores, 1.0),
        lambda: at_share(network, gates, scores, -0.1),
        lambda: at_share(network, gates, scores, float("nan")),
        lambda: at_share(network, gates, scores, 0.99),
        lambda: rival.masks(network, gates, scores, ranking="best", like=like, share=0.5),
    ):
        with pytest.raises(InputError, match=r"expected|cannot be pruned"):
            call()
    assert mn.accuracy(network, images, labels, gates, at_share(network, gates, scores, 0.3)) >= 0
