"""Every rival against a straightforward computation of its formula, one unit, weight or sample at a time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError
from mipnet.pruning.rivals.gradients import gate_gradients, weight_gradients
from mipnet.pruning.rivals.registry import RIVALS, usable
from mipnet.pruning.rivals.scores.activation import activation
from mipnet.pruning.rivals.scores.fisher import fisher
from mipnet.pruning.rivals.scores.group import group
from mipnet.pruning.rivals.scores.magnitude import magnitude
from mipnet.pruning.rivals.scores.pfp import allocate, pfp
from mipnet.pruning.rivals.scores.random import random
from mipnet.pruning.rivals.scores.sipp import allocate_rows, draws_for, relative_error, sipp, sipp_factors, with_factors
from mipnet.pruning.rivals.scores.snip import snip
from mipnet.pruning.rivals.scores.taylor import taylor
from mipnet.pruning.rivals.sensitivity import complexity, feature_sensitivities, weight_sensitivities
from mipnet.pruning.rivals.weight_matrices import readers
from mipnet.pruning.smaller.parameter_counts import pruned_share
from tests.pruning.nets import case, cnn, mlp, residual
from tests.sweep import marked

FAMILIES = (mlp, cnn, residual)


def losses(network, images, labels, after=None):
    logits = torch.as_tensor(network.forward(images, after))
    return F.cross_entropy(logits, torch.as_tensor(labels), reduction="none").numpy()


def scaled(gates, name, unit, factor):
    """A network action that multiplies one unit at its sites."""

    def action(value):
        found = value.clone()
        found[:, unit] *= factor
        return found

    return {site: action for gate in gates if gate.name == name for site in gate.sites}


@pytest.fixture(params=FAMILIES, ids=lambda f: f.__name__)
def given(request):
    return case(request.param)


@pytest.mark.parametrize("name", usable())
def test_scores_have_the_form_of_gates_and_follow_the_seed(given, name):
    network, gates, images, labels = given
    rival = RIVALS[name]
    scores = rival.scores(network, gates, images, labels, seed=3)
    assert list(scores) == [gate.name for gate in gates]
    for gate in gates:
        assert scores[gate.name].dims == (gate.dim,)
        assert scores[gate.name].shape == (gate.units,)
        assert np.isfinite(scores[gate.name]).all()
    assert scores.equals(rival.scores(network, gates, images, labels, seed=3))
    others = [rival.scores(network, gates, images, labels, seed=s) for s in range(4, 8)]
    if name != "sipp-hybrid":  # its error bounds let it draw in wide layers only
        assert all(scores.equals(other) for other in others) != rival.drawn


def test_gate_gradients_are_finite_differences(given):
    network, gates, images, labels = given
    found = gate_gradients(network, gates, images, labels, batch=5)
    for gate in gates:
        for unit in range(gate.units):
            up, down = (losses(network, images, labels, scaled(gates, gate.name, unit, 1 + h)) for h in (1e-6, -1e-6))
            assert found[gate.name][:, unit].numpy() == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_taylor_and_fisher_reduce_gate_gradients(given):
    network, gates, images, labels = given
    g = {name: value.numpy() for name, value in gate_gradients(network, gates, images, labels).items()}
    for gate in gates:
        n = gate.name
        assert taylor(network, gates, images, labels)[n].values == pytest.approx(np.abs(g[n]).mean(axis=0))
        assert taylor(network, gates, images, labels, variant="abs-mean")[n].values == pytest.approx(np.abs(g[n].mean(axis=0)))
        batches = [g[n][:5], g[n][5:10], g[n][10:]]
        squared = np.mean([b.mean(axis=0) ** 2 for b in batches], axis=0)
        assert taylor(network, gates, images, labels, variant="squared", batch=5)[n].values == pytest.approx(squared)
        assert fisher(network, gates, images, labels)[n].values == pytest.approx((g[n] ** 2).sum(axis=0) / (2 * len(images)))


def nudged(network, name, index, step):
    factors = torch.ones_like(network[name].layer.weight).reshape(-1)
    factors[index] += step
    groups = getattr(network[name].layer, "groups", 1)
    shape = (groups, len(network[name].layer.weight) // groups, -1)
    return with_factors(network, {name: factors.reshape(shape)})


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_gradients_are_finite_differences_and_snip_sums_them(family):
    network, gates, images, labels = case(family)
    found = weight_gradients(network, images, labels, batch=7)
    by_weight = {}
    for node in (n for n in network.nodes if n.layer.prunable):
        weight = node.layer.weight.reshape(-1)
        each = []
        for i in range(len(weight)):  # derivative with respect to a factor c on one weight: dL/dc = w dL/dw
            up, down = (losses(nudged(network, node.name, i, h), images, labels).mean() for h in (1e-6, -1e-6))
            each.append((up - down) / 2e-6)
        by_weight[node.name] = np.array(each).reshape(node.layer.weight.shape)
        assert (found[node.name].reshape(-1) * weight).numpy() == pytest.approx(np.array(each), abs=1e-6)
    for gate in gates:
        saliency = np.abs(by_weight[gate.nodes[0]]).reshape(gate.units, -1).sum(axis=1)
        assert snip(network, gates, images, labels)[gate.name].values == pytest.approx(saliency, abs=1e-5)


def test_snip_takes_weights_from_another_network():
    network, gates, images, labels = case(mlp)
    before = case(mlp, seed=9)[0]
    assert snip(network, gates, images, labels, at=before).equals(snip(before, gates, images, labels))
    with pytest.raises(InputError, match="at"):
        snip(network, gates, images, labels, at=case(cnn)[0])


def test_magnitude_and_activation(given):
    network, gates, images, labels = given
    l2, l1, mean = magnitude(network, gates, images, labels), magnitude(network, gates, images, labels, norm=1), None
    values = network.values(torch.as_tensor(images))
    mean = activation(network, gates, images, labels)
    for gate in gates:
        layer = network[gate.name].layer
        for k in range(gate.units):
            own = np.append(layer.weight[k].numpy().ravel(), layer.bias[k].item())
            assert float(l2[gate.name][k]) == pytest.approx(np.linalg.norm(own))
            assert float(l1[gate.name][k]) == pytest.approx(np.abs(own).sum())
            assert float(mean[gate.name][k]) == pytest.approx(values[gate.sites[0]][:, k].abs().mean().item())


def test_readers_are_the_elements_that_a_unit_changes(given):
    network, gates, images, _ = given
    x = torch.as_tensor(images)
    plain = network.values(x)
    held = {n.name: partial(lambda value, name: plain[name], name=n.name) for n in network.nodes if n.layer.prunable}
    for gate in gates:
        found = readers(network, gate)
        for name, member in found.items():
            source = network[name].inputs[0]
            for k in range(gate.units):
                changed = (network.values(x, held | scaled(gates, gate.name, k, 50.0))[source] != plain[source]).any(dim=0)
                features = changed.flatten(1).any(dim=1) if changed.ndim > 1 else changed
                assert not (features & ~member[k]).any()
                assert plain[gate.sites[0]][:, k].abs().max() == 0 or (features | ~member[k]).any()


def test_group_is_the_norm_of_all_that_leaves():
    network, gates, images, labels = case(cnn)
    found = group(network, gates, images, labels)
    layer = {name: network[name].layer for name in ("conv1", "bn1", "conv2", "fc1", "fc2")}
    for k in range(4):  # channel k of conv1: read by the outputs of its half of conv2
        reads = layer["conv2"].weight[3 * (k // 2) : 3 * (k // 2) + 3, k % 2]
        parts = (layer["conv1"].weight[k], layer["conv1"].bias[k], layer["bn1"].factor[k], layer["bn1"].shift[k], reads)
        assert float(found["conv1"][k]) == pytest.approx(float(sum((p**2).sum() for p in parts)) ** 0.5)
    for k in range(6):  # three positions of channel k are read by fc1
        parts = (layer["conv2"].weight[k], layer["conv2"].bias[k], layer["fc1"].weight[:, 3 * k : 3 * k + 3])
        assert float(found["conv2"][k]) == pytest.approx(float(sum((p**2).sum() for p in parts)) ** 0.5)


def test_group_counts_every_reader_of_a_sum_and_a_concatenation():
    network, gates, images, labels = case(residual)
    found = group(network, gates, images, labels)
    fc1, fc2, fc3 = (network[n].layer for n in ("fc1", "fc2", "fc3"))
    for k in range(5):
        parts = (fc1.weight[k], fc1.bias[k], fc2.weight[:, k], fc3.weight[:, k], fc3.weight[:, 5 + k])
        assert float(found["fc1"][k]) == pytest.approx(float(sum((p**2).sum() for p in parts)) ** 0.5)


def unfolded(layer, x):
    """For one input: the patches and, for each output, the slice of a patch that it reads; written with plain indexing."""
    if x.ndim == 1:
        return [x[None].repeat(len(layer.weight), 0)]
    top, bottom, left, right = layer.padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    kh, kw = layer.weight.shape[2:]
    per, out = layer.weight.shape[1], len(layer.weight) // layer.groups
    found = []
    for r in range(0, padded.shape[1] - kh + 1, layer.stride[0]):
        for c in range(0, padded.shape[2] - kw + 1, layer.stride[1]):
            window = padded[:, r : r + kh, c : c + kw]
            found.append(np.stack([window[(i // out) * per : (i // out + 1) * per].ravel() for i in range(len(layer.weight))]))
    return found


def by_definition(layer, inputs, reduce):
    weight = layer.weight.numpy().reshape(len(layer.weight), -1)
    best = np.zeros_like(weight)
    for x in inputs:
        halves = [x] if (inputs >= 0).all() else [np.maximum(x, 0), np.maximum(-x, 0)]
        for half in halves:
            each = []
            for patch in unfolded(layer, half):
                g = np.zeros_like(weight)
                for i in range(len(weight)):
                    for sign in (1, -1):
                        part = np.maximum(sign * weight[i], 0) * patch[i]
                        if part.sum() > 1e-15:
                            g[i] += part / part.sum()
                each.append(g)
            best = np.maximum(best, np.max(each, axis=0) if reduce == "max" else np.mean(each, axis=0))
    return best


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_sensitivities_are_by_definition(given, reduce):
    network, _, images, _ = given
    values = network.values(torch.as_tensor(images))
    found = weight_sensitivities(network, images, reduce)
    for name, s in found.items():
        layer = network[name].layer
        truth = by_definition(layer, values[network[name].inputs[0]].numpy(), reduce)
        assert s.numpy().reshape(truth.shape) == pytest.approx(truth)
        assert s.max() <= 1 + 1e-12


def test_sensitivities_of_units_come_from_outgoing_weights():
    network, gates, images, labels = case(cnn)
    s = {name: value.numpy() for name, value in weight_sensitivities(network, images, "max").items()}
    found, mean = pfp(network, gates, images, labels), weight_sensitivities(network, images, "mean")
    assert found["fc1"].values == pytest.approx(s["fc2"][0].max(axis=0))
    assert found["conv2"].values == pytest.approx(s["fc1"][0].max(axis=0).reshape(6, 3).max(axis=1))
    assert found["conv1"].values == pytest.approx(s["conv2"].reshape(2, 3, 2, 4).max(axis=(1, 3)).ravel())
    assert sipp(network, gates, images, labels)["fc1"].values == pytest.approx(mean["fc2"][0].sum(dim=0).numpy())
    largest = sipp(network, gates, images, labels, combine="max")
    assert largest.equals(feature_sensitivities(network, gates, mean, "max"))


def test_sipp_keeps_its_budget_and_the_largest():
    network, _, images, _ = case(cnn)
    s = torch.cat([v.reshape(-1) for v in weight_sensitivities(network, images, "mean").values()])
    for keep in (0.1, 0.5, 1.0):
        factors = torch.cat([v.reshape(-1) for v in sipp_factors(network, images, keep).values()])
        assert set(factors.tolist()) <= {0.0, 1.0}
        assert int(factors.sum()) == round(keep * len(s))
        assert keep == 1 or s[factors == 1].min() >= s[factors == 0].max()
    whole = with_factors(network, sipp_factors(network, images, 1.0))
    assert np.array_equal(whole.forward(images), network.forward(images))


@pytest.mark.parametrize("kind", ["random", marked("hybrid")])
def test_drawn_sipp_keeps_its_budget_on_average_and_is_unbiased(kind):
    network, _, images, _ = case(mlp, samples=40)
    total = sum(v.numel() for v in weight_sensitivities(network, images).values())
    draws = [torch.cat([v.reshape(-1) for v in sipp_factors(network, images, 0.4, kind=kind, seed=s).values()]) for s in range(25)]
    kept = np.mean([float((f > 0).sum()) for f in draws])
    assert kept == pytest.approx(0.4 * total, rel=0.08)
    if kind == "random":
        sensitive = torch.cat([v.reshape(-1) for v in weight_sensitivities(network, images).values()]) > 0.02
        assert torch.stack(draws).mean(dim=0)[sensitive].mean() == pytest.approx(1, abs=0.08)


def test_hybrid_draws_where_its_bound_is_better():
    g = np.random.default_rng(0)
    wide = mn.Network.build((4000,), [("fc1", mn.Dense(g.uniform(0.5, 1, (2, 4000))))])
    images = g.uniform(0.5, 1, (3, 4000))
    sure, drawn = (sipp_factors(wide, images, 0.4, kind="hybrid", delta=d)["fc1"] for d in (1e-300, 0.9))
    assert set(sure.unique().tolist()) == {0.0, 1.0}
    assert drawn.max() > 1


def test_the_allocation_of_sipp_is_optimal():
    g = np.random.default_rng(0)
    A, nnz, share = g.uniform(1, 400, 9), g.integers(2, 40, 9).astype(float), g.uniform(0.1, 1, 9)
    budget = 0.5 * nnz.sum()
    m = allocate_rows(A, nnz, share, budget)
    assert m.sum() == pytest.approx(budget)
    assert (m <= nnz + 1e-9).all()
    cost = (share * relative_error(m, A)).sum()
    for _ in range(300):  # no exchange between two rows is better
        i, j = g.choice(9, 2, replace=False)
        move = min(g.uniform(0, 1), m[i] * 0.9, nnz[j] - m[j])
        other = m.copy()
        other[[i, j]] += (-move, move)
        assert (share * relative_error(other, A)).sum() >= cost - 1e-9
    assert allocate_rows(A, nnz, share, 1e9) == pytest.approx(nnz)


def test_draws_give_the_distinct_ones_asked_for():
    p = np.array([[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25]])
    n = draws_for(p, np.array([2.0, 3.5]))
    assert [sum(1 - (1 - q) ** k for q in row) for row, k in zip(p, n, strict=True)] == pytest.approx([2.0, 3.5])
    assert complexity(9, 4, 0.01) == pytest.approx(6 * np.log(8 * 10 * 4 / 0.01))


def test_drawn_scores_of_pfp_have_the_law_of_a_draw():
    network, gates, images, labels = case(mlp)
    s = pfp(network, gates, images, labels)["fc1"].values
    first = [int(np.argmax(pfp(network, gates, images[:12], labels, kind="random", seed=i)["fc1"].values)) for i in range(300)]
    assert np.bincount(first, minlength=7) / 300 == pytest.approx(s / s.sum(), abs=0.08)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_pfp_has_one_error_for_all_layers(share):
    network, gates, images, labels = case(cnn)
    s = pfp(network, gates, images, labels)
    found = allocate(network, gates, s, share)
    patches, kernel = {"conv1": 6, "conv2": 1, "fc1": 1}, {"conv1": 4, "conv2": 3, "fc1": 1}
    for gate in gates:
        values = s[gate.name].values
        A = values.sum() * complexity(patches[gate.name] // 2 if gate.name == "conv1" else 1, kernel[gate.name], 1e-16)
        m = max(1, np.ceil(3 * (6 + 2 * found.eps) * A / found.eps**2))
        u = int(np.ceil(sum(1 - (1 - v / values.sum()) ** m for v in values) - 1e-9))
        assert int(found.masks[gate.name].sum()) == u
        assert found.masks[gate.name].values[np.argsort(-values)[:u]].all()


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["random", "top"])
def test_drawn_pfp_reaches_the_share_on_average(kind):
    network, gates, images, labels = case(mlp)
    s = pfp(network, gates, images, labels)
    found = [allocate(network, gates, s, 0.5, kind=kind, seed=i) for i in range(20)]
    shares = [pruned_share(network, gates, f.masks) for f in found]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)
    assert all(int(f.masks[g.name].sum()) >= 1 for f in found for g in gates)
    assert found[3].factors.equals(allocate(network, gates, s, 0.5, kind=kind, seed=3).factors)


def test_random_scores_rank_without_replacement():
    network, gates, images, labels = case(mlp)
    scores = random(network, gates, images, labels, seed=1)
    assert len(np.unique(scores["fc1"])) == 7


@pytest.mark.parametrize("name", usable())
def test_bad_images_labels_and_gates_are_one_clear_error(name):
    network, gates, images, labels = case(mlp)
    rival = RIVALS[name]
    with pytest.raises(InputError, match="gate"):
        rival.scores(network, (), images, labels)
    if name in ("random", "magnitude", "group", "torch-pruning"):
        return
    broken = images.copy()
    broken[2, 1] = np.nan
    for wrong in (images[:, :4], images[:0], broken):
        with pytest.raises(InputError, match="images"):
            rival.scores(network, gates, wrong, labels[: len(wrong)])
    if name.startswith(("taylor", "fisher", "snip")):
        for wrong in (labels[:5], labels + 3, labels.astype(float)):
            with pytest.raises(InputError, match="labels"):
                rival.scores(network, gates, images, wrong)


def test_bad_options_are_one_clear_error():
    network, gates, images, _ = given = case(mlp)
    for call in (
        lambda: taylor(*given, variant="best"),
        lambda: taylor(*given, batch=0),
        lambda: magnitude(*given, norm=3),
        lambda: sipp(*given, kind="best"),
        lambda: sipp(*given, kind="random", keep=0.0),
        lambda: sipp(*given, combine="mean"),
        lambda: weight_sensitivities(network, images, "sum"),
        lambda: pfp(*given, kind="best"),
        lambda: pfp(*given, kind="top", draws=0.0),
        lambda: allocate(network, gates, pfp(*given), 1.0),
        lambda: allocate(network, gates, pfp(*given), 0.99),
        lambda: allocate(network, gates, pfp(*given), 0.5, kind="best"),
        lambda: allocate(network, gates, xr.Dataset(), 0.5),
        lambda: RIVALS["best"],
    ):
        with pytest.raises(InputError, match=r"expected|cannot"):
            call()
