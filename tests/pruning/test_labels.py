"""Masks and scores by the labels of their units, images and classes by the labels of their samples, in every function that takes them."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import DataError, InputError, MipnetError
from mipnet.model.losses import add_loss
from mipnet.network.gates import by_unit, mask_actions
from mipnet.pruning.importance.auxiliary_heads import HeadTraining
from mipnet.pruning.rivals.registry import RIVALS
from mipnet.pruning.smaller.parameter_counts import remaining_parameters
from mipnet.pruning.smaller.ranking import at_share, same_counts
from mipnet.pruning.smaller.torch_masks import torch_masks
from mipnet.pruning.training import evaluate
from mipnet.readers.data import Dataset, select
from mipnet.verification.two_networks.masked_agreement import masked_network

# Masks and scores by unit

MODULE = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)).double()
NETWORK = mn.from_torch(MODULE, torch.zeros(1, 4))
GATES = mn.find_gates(NETWORK)
SCORES = xr.Dataset({g.name: (g.dim, np.random.default_rng(k).permutation(g.units) / g.units) for k, g in enumerate(GATES)})
SCORES = SCORES.assign_coords({g.dim: np.arange(g.units) for g in GATES})
RANKED = SCORES.isel({g.dim: np.random.default_rng(7 + k).permutation(g.units) for k, g in enumerate(GATES)})
MASKS, RANKED_MASKS = SCORES > 0.4, RANKED > 0.4
X, Y = np.random.default_rng(3).normal(size=(20, 4)), np.random.default_rng(4).integers(0, 3, 20)


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    return all(bool((by_unit(GATES, one)[g.name].values == by_unit(GATES, other)[g.name].values).all()) for g in GATES)


TAKERS = {
    "prune": lambda s, m: mn.prune(MODULE, m).state_dict(),
    "prune by scores": lambda s, m: mn.prune(MODULE, s, threshold=0.4).state_dict(),
    "prune by share": lambda s, m: mn.prune(MODULE, s, threshold={"params": 0.3}).state_dict(),
    "masked forward": lambda s, m: {"y": torch.tensor(NETWORK.forward(X, mask_actions(GATES, m)))},
    "accuracy": lambda s, m: {"a": torch.tensor(mn.accuracy(NETWORK, X, Y, GATES, m))},
    "parameters": lambda s, m: {k: torch.tensor(v) for k, v in remaining_parameters(NETWORK, GATES, m).items()},
    "masked network": lambda s, m: {"y": torch.tensor(masked_network(NETWORK, GATES, m).forward(X))},
    "torch masks": lambda s, m: {"y": torch_masks(mn.prune(MODULE, MASKS | True), NETWORK, GATES, m)(torch.tensor(X)).detach()},
    "fine tuning": lambda s, m: mn.fine_tune(MODULE, X, Y, masks=m, epochs=1).state_dict(),
    "make_masks": lambda s, m: masks_of(mn.make_masks(NETWORK, GATES, s, 0.4)),
    "critical": lambda s, m: masks_of(mn.critical_masks(m, s)),
    "critical, one side": lambda s, m: masks_of(mn.critical_masks(MASKS, s)),
    "critical, other side": lambda s, m: masks_of(mn.critical_masks(m, SCORES.drop_vars([g.dim for g in GATES]))),
    "same counts": lambda s, m: masks_of(same_counts(GATES, s, m)),
    "at a share": lambda s, m: masks_of(at_share(NETWORK, GATES, s, 0.3)),
    "comparison": lambda s, m: {"a": torch.tensor([r.accuracy for r in compared(m).rows])},
}


def masks_of(masks: xr.Dataset) -> dict[str, torch.Tensor]:
    return {g.name: torch.tensor(by_unit(GATES, masks)[g.name].values) for g in GATES}


def compared(masks: xr.Dataset) -> mn.compare:
    pair = mn.LabelledImages(X, Y)
    return mn.compare(NETWORK, GATES, masks, pair, pair, rivals=["magnitude"])


@pytest.mark.parametrize("name", TAKERS)
def test_units_are_taken_by_label(name):
    plain, moved = TAKERS[name](SCORES, MASKS), TAKERS[name](RANKED, RANKED_MASKS)
    assert plain.keys() == moved.keys()
    assert all(torch.equal(plain[key], moved[key]) for key in plain)
    assert not same(MASKS, RANKED_MASKS.drop_vars([g.dim for g in GATES]))  # by position they are other masks


@pytest.mark.parametrize("name", [name for name in TAKERS if name != "critical, one side"])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 3, 4, 6], "label 6 is no unit of it"),
        ([0, 1, 2, 3, 4, 4], "label 4 is there twice"),
        ([1, 2, 3, 4, 5, 6], "label 6 is no unit of it"),
        (list("abcdef"), "label 'a' is no unit of it"),
    ],
)
def test_labels_of_other_units_are_refused(name, labels, words):
    given = [each.assign_coords({GATES[0].dim: labels}) for each in (SCORES, MASKS)]
    with pytest.raises(
        MipnetError, match=f"{words}; expected each unit once" if "critical" not in name else "expected 0 to 5|expected each"
    ):
        TAKERS[name](*given)


def test_units_of_another_layer_and_missing_gates_are_refused():
    first, second = GATES
    wrong = xr.Dataset({first.name: (second.dim, np.ones(6, dtype=bool)), second.name: ("u", np.ones(5, dtype=bool))})
    with pytest.raises(InputError, match=f"`{first.name}` has masks along `{second.dim}`; expected them along `{first.dim}`"):
        by_unit(GATES, wrong)
    with pytest.raises(InputError, match=f"also for `{second.name}`"):
        mn.accuracy(NETWORK, X, Y, GATES, MASKS[[first.name]])
    with pytest.raises(InputError, match=r"given a dict as `masks`; expected an xarray\.Dataset"):
        mn.accuracy(NETWORK, X, Y, GATES, {first.name: np.ones(6)})
    with pytest.raises(InputError, match=r"of shape \(5,\); expected one for each of 6 units"):
        by_unit(GATES, MASKS.isel({first.dim: slice(5)}))


def test_gates_that_share_a_dimension_are_put_in_order_once():
    twin = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    gates = mn.find_gates(mn.from_torch(twin, torch.zeros(1, 4)))
    given = xr.Dataset({gate.name: ("u", [0.3, 0.1, 0.2]) for gate in gates}, coords={"u": [2, 0, 1]})
    assert by_unit(gates, given, "scores")[gates[1].name].values.tolist() == [0.1, 0.2, 0.3]


# Images and their classes

ORDER = np.random.default_rng(5).permutation(20)
BY_SAMPLE = xr.DataArray(Y, dims="sample", coords={"sample": range(20)})
PAIRS = {
    "xarray": (xr.DataArray(X[ORDER], dims=("sample", "unit"), coords={"sample": ORDER}), BY_SAMPLE),
    "other name": (xr.DataArray(X[ORDER], dims=("n", "unit"), coords={"n": ORDER}), BY_SAMPLE),
    "pandas": (pd.DataFrame(X).iloc[ORDER], pd.Series(Y)),
    "both": (pd.DataFrame(X)[[2, 0, 1, 3]], BY_SAMPLE),
    "units last": (xr.DataArray(X.T, dims=("unit", "sample"), coords={"sample": range(20)}), pd.Series(Y).iloc[ORDER]),
    "words": (pd.DataFrame(X, index=[f"i{k}" for k in range(20)]), pd.Series(Y, index=[f"i{k}" for k in range(20)]).iloc[ORDER]),
    "only images": (xr.DataArray(X, dims=("sample", "unit"), coords={"sample": range(5, 25)}), Y),
    "only classes": (X, pd.Series(Y)),
}


def accuracies(images, labels) -> list[float]:
    pair = mn.LabelledImages(images, labels)
    table = mn.compare(NETWORK, GATES, MASKS, pair, pair, rivals=["magnitude"])
    return [mn.accuracy(NETWORK, images, labels), evaluate(MODULE, images, labels)[1], table.reference]


@pytest.mark.parametrize("name", PAIRS)
def test_images_and_classes_are_paired_by_label(name):
    images, labels = PAIRS[name]
    assert accuracies(images, labels) == accuracies(X, Y)
    for make in (
        lambda: HeadTraining(images, labels),
        lambda: mn.Importance(NETWORK, images, labels),
        lambda: Dataset(images, labels, "d", 3),
    ):
        made = make()
        pairs = {tuple(np.asarray(x).tolist()): int(y) for x, y in zip(made.images, made.labels, strict=True)}
        assert pairs == {tuple(x.tolist()): int(y) for x, y in zip(X, Y, strict=True)}


def test_scores_and_training_pair_by_label():
    images, labels = PAIRS["xarray"]
    one, other = (RIVALS["taylor"].scores(NETWORK, GATES, *pair) for pair in ((images, labels), (X, Y)))
    assert all(np.allclose(one[g.name], other[g.name]) for g in GATES)
    tuned = mn.fine_tune(MODULE, *PAIRS["units last"], epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), mn.fine_tune(MODULE, X, Y, epochs=1).parameters(), strict=True))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (PAIRS["xarray"][0], Y, "the images have labels of samples that do not increase"),
        (X, pd.Series(Y).iloc[ORDER], "the classes have labels of samples that do not increase"),
        (pd.DataFrame(X), pd.Series(Y, index=range(1, 21)), "different labels along `sample`"),
        (pd.DataFrame(X), pd.Series(Y, index=[0, *range(19)]), "different labels along `sample`"),
        (pd.DataFrame(X), pd.Series(Y).iloc[:19], "different labels along `sample`"),
    ],
)
def test_samples_that_cannot_be_paired_are_refused(images, labels, words):
    for call in (mn.accuracy, lambda n, x, y: mn.prune_stepwise(n, x, y), lambda n, x, y: mn.LabelledImages(x, y)):
        with pytest.raises(DataError, match=words):
            call(NETWORK, images, labels)


def test_scores_of_samples_out_of_order_are_refused():
    data = Dataset(X, Y, "d", 3)
    assert len(select(data, total=2, pick="confident", scores=pd.Series(np.arange(20.0)))) == 2
    with pytest.raises(DataError, match="do not increase"):
        select(data, total=2, pick="confident", scores=pd.Series(np.arange(20.0)).iloc[ORDER])


def test_labels_of_a_loss_follow_the_samples_of_the_encoding():
    encoding = mn.encode(NETWORK, mn.Samples(X[:3]))
    one = add_loss(encoding, xr.DataArray([2, 0, 1], dims="sample", coords={"sample": [2, 0, 1]}), mn.Loss("margin"))
    other = mn.encode(NETWORK, mn.Samples(X[:3]))
    wanted = add_loss(other, np.array([0, 1, 2]), mn.Loss("margin"))
    values = []
    for each, loss in ((encoding, one), (other, wanted)):
        each.model.add_objective(loss)
        values.append(mn.solve(each).objective)
    assert values[0] == pytest.approx(values[1])


def test_every_function_of_images_and_labels_pairs_them():
    """Functions with parameters `images` and `labels` have the decorator, or call one that has it."""
    passed_on = {"pfp", "fisher", "sipp", "activation", "torch_pruning", "random", "magnitude", "taylor", "group", "snip", "score_weights"}
    passed_on |= {"importance", "prune_stepwise", "prepared", "__call__", "load", "samples_by_label", "soft_targets", "training_data"}
    root, bare = Path(mn.__file__).parent, []
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or (node.name.startswith("_") and node.name != "__init__"):
                continue
            names = {each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            if {"images", "labels"} <= names and node.name not in passed_on:
                decorators = {ast.unparse(each).split("(")[0] for each in node.decorator_list}
                bare += [] if "align_samples" in decorators else [f"{file.name}: {node.name}"]
    assert not bare
