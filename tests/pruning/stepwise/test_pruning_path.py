"""Masks along a path of shares: the numbers of each step are true, and the masks beat those from one evaluation of the full network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_network
from mipnet.errors import DataError, InputError
from mipnet.network.gates import mask_actions
from mipnet.pruning.rivals.registry import RIVALS
from mipnet.pruning.smaller.masks import accuracy, random_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import at_share
from mipnet.pruning.stepwise import pruning_path
from mipnet.pruning.stepwise.pruning_path import prune_stepwise
from tests.nets import SEEDS, make


@pytest.fixture(scope="module")
def digits():
    network = read_network(load_spec("examples/digits.yaml"))
    train, test = (mn.load("digits", split=split, shape=(64,)) for split in ("train", "test"))
    return network, train, test


@pytest.fixture(scope="module")
def path(digits):
    network, train, _ = digits
    return prune_stepwise(network, train.images, train.labels, shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), hard=0.6)


def test_the_numbers_of_every_step_are_true(digits, path) -> None:
    network, train, _ = digits
    own = torch.tensor(network.forward(train.images)).softmax(1)
    targets = 0.4 * own + 0.6 * torch.nn.functional.one_hot(torch.tensor(train.labels), 10)
    shares = [step.share for step in path.steps]
    assert shares == sorted(set(shares))
    assert shares[-1] >= 0.58
    kept = {gate.name: np.ones(gate.units, dtype=bool) for gate in path.gates}
    for step in path.steps:
        assert step.share == pytest.approx(pruned_share(network, path.gates, step.masks))
        assert step.share > step.target - 0.03
        assert step.share < step.target + 0.03 or step.change < 1e-9  # units that nothing depends on go at once
        logits = torch.tensor(network.forward(train.images, mask_actions(path.gates, step.masks)))
        assert step.loss == pytest.approx(float(-(targets * logits.log_softmax(1)).sum(1).mean()))
        gone = sum(int((kept[name] & ~step.masks[name].values).sum()) for name in kept)
        back = sum(int((~kept[name] & step.masks[name].values).sum()) for name in kept)
        assert step.flips == (gone, back)
        assert all(mask.any() for mask in step.masks.values())
        kept = {name: step.masks[name].values for name in kept}


def test_the_change_of_small_steps_is_predicted(digits) -> None:
    network, train, _ = digits
    steps = prune_stepwise(network, train.images, train.labels, shares=tuple(np.arange(0.02, 0.3, 0.02))).steps
    before = steps[0].loss
    for step in steps[1:]:
        assert step.loss - before == pytest.approx(step.change, abs=0.3 * abs(step.change) + 0.01)
        before = step.loss


def test_masks_beat_random_ones_and_those_of_one_evaluation(digits, path) -> None:
    network, train, test = digits
    step = path.at(0.39)

    def right(masks) -> float:
        return accuracy(network, test.images, test.labels, path.gates, masks)

    rival = RIVALS["taylor"].prepared(network, path.gates, train.images, train.labels, seed=0)
    assert right(step.masks) >= right(at_share(network, path.gates, rival, step.share, "none")) + 1
    assert right(step.masks) >= np.mean([right(random_masks(step.masks, seed)) for seed in range(5)]) + 10
    assert right(step.masks) >= accuracy(network, test.images, test.labels) - 4


def test_scores_order_units_by_how_long_they_stay(path) -> None:
    scores = path.scores()
    last = path.steps[-1].masks
    for gate in path.gates:
        always = np.all([step.masks[gate.name].values for step in path.steps], axis=0)
        assert ((scores[gate.name].values == 1) == always).all()
        assert scores[gate.name].values[~last[gate.name].values].max() < 1


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_a_solver_takes_the_search_as_its_start_and_does_no_worse(digits, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_path, "STEP_SOLVE_SECONDS_MAX", 1.0)
    network, train, _ = digits
    alone = prune_stepwise(network, train.images[:300], train.labels[:300], shares=(0.2,)).steps[0]
    solved = prune_stepwise(network, train.images[:300], train.labels[:300], shares=(0.2,), backend=backend).steps[0]
    assert alone.result is None
    assert solved.result is not None
    assert solved.result.verified
    assert solved.result.objective == pytest.approx(solved.change, abs=1e-6)
    assert solved.result.bound <= solved.result.objective + 1e-6
    assert solved.change <= alone.change + 1e-6


@pytest.mark.parametrize(("family", "seed"), SEEDS[::5])
def test_networks_of_all_kinds(family, seed: int) -> None:
    network, g = make(family, seed)
    images, labels = g.uniform(0, 1, (20, *network.input_shape)), g.integers(0, 3, 20)
    path = prune_stepwise(network, images, labels, shares=(0.1, 0.3, 0.5))
    for step in path.steps:
        assert step.share == pytest.approx(pruned_share(network, path.gates, step.masks))


def test_what_cannot_be_is_refused(digits) -> None:
    network, train, _ = digits
    few = train.images[:20], train.labels[:20]
    with pytest.raises(InputError, match=r"`hard` is 2; expected a number in \[0, 1\]"):
        prune_stepwise(network, *few, hard=2)
    for shares in ((), (0.3, 0.2), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(InputError, match="expected rising numbers between 0 and 1"):
            prune_stepwise(network, *few, shares=shares)
    with pytest.raises(DataError, match="labels"):
        prune_stepwise(network, train.images[:20], train.labels[:19])
    path = prune_stepwise(network, *few, shares=(0.1, 0.999))
    with pytest.raises(InputError, match=r"no step prunes 0.99 of the parameters; the path ends at"):
        path.at(0.99)
