"""Time limits of the pruning functions are those of the whole call: at their end, what is finished is returned, and no work goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.network import pass_cost
from mipnet.pruning.importance.auxiliary_heads import HeadTraining
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.by_layer import by_layer
from mipnet.pruning.importance.frozen_network import freeze
from mipnet.pruning.importance.weight_path import weight_path
from mipnet.pruning.labelled_images import LabelledImages
from mipnet.pruning.prune_while_training import PruningSchedule, prune_while_training
from mipnet.pruning.rivals.lucky_subnetworks import lucky
from mipnet.pruning.rivals.parsimonious import ParsimoniousSettings, learn
from mipnet.pruning.rivals.registry import RIVALS
from mipnet.pruning.rivals.score_arrays import scored_until
from mipnet.pruning.smaller.masks import accuracy
from mipnet.pruning.stepwise.curvature import Curvature
from mipnet.pruning.stepwise.step_program import StepProgram
from mipnet.pruning.training import evaluate
from mipnet.readers.data import Dataset
from tests.clock import TickingClock
from tests.nets import dense
from tests.pruning.importance.test_frozen_network import question, relu_mlp
from tests.solving.test_time_limit import Counting

LIMIT_EXPECTED = "expected a positive number of seconds, or None for no limit"


def layered():
    """A question about a network of two stages, and training images for the head between them."""
    g, asked = np.random.default_rng(1), question(relu_mlp, 3, loss=mn.Loss("margin"))
    images = g.uniform(0, 1, (300, *asked.network.input_shape))
    return asked, HeadTraining(images, g.integers(0, asked.network.output_shape[0], 300), epochs=3)


CALLS = {
    "importance": lambda asked, **how: mn.importance(asked.network, asked.images, asked.labels, **how),
    "frozen": lambda asked, **how: replace(asked, formulation={"relu": "frozen"}).solve(**how),
    "solve": lambda asked, **how: asked.solve(**how),
    "pose": lambda asked, time_limit: asked.pose(time_limit=time_limit),
    "by_class": lambda asked, **how: by_class(asked, **how),
    "weight_path": lambda asked, **how: weight_path(asked, (1.0, 5.0), **how),
    "by_layer": lambda asked, **how: by_layer(*layered(), **how),
    "prune_stepwise": lambda asked, **how: mn.prune_stepwise(asked.network, asked.images, asked.labels, shares=(0.1,), **how),
    "accuracy": lambda asked, **how: accuracy(asked.network, asked.images, asked.labels, **how),
    "train": lambda asked, time_limit: mn.TrainingSettings(time_limit=time_limit),
    "compare": lambda asked, **how: compare(asked, **how),
    "evaluate": lambda asked, **how: evaluate(small_module(), torch.rand(9, 4), [0] * 9, **how),
    "lucky": lambda asked, **how: retrained(**how),
    "learn": lambda asked, **how: learned(**how),
}


def small_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def data(count=32):
    g = np.random.default_rng(0)
    return Dataset(g.uniform(size=(count, 4)), np.arange(count) % 2, "drawn", 2)


def retrained(**how):
    module, given = small_module(), data()
    masks = xr.Dataset({gate.name: (gate.dim, np.arange(6) > 1) for gate in mn.find_gates(mn.from_torch(module, torch.zeros(1, 4)))})
    return lucky(module, masks, given, given, seeds=(0,), settings=mn.TrainingSettings(epochs=2, batch=16, **how))


def learned(**how):
    given = data()
    return learn(small_module(), given.images, given.labels, epochs=4, settings=ParsimoniousSettings(batch=16, **how))


def compare(asked, **how):
    gates, images = mn.find_gates(asked.network), LabelledImages(asked.images, asked.labels)
    masks = xr.Dataset({gate.name: (gate.dim, np.arange(gate.units) % 3 > 0) for gate in gates})
    return mn.compare(asked.network, gates, masks, images, images, rivals=["magnitude", "random"], settings=mn.ComparisonSettings(**how))


@pytest.mark.parametrize("name", CALLS)
def test_none_is_no_limit_and_other_limits_are_refused(name):
    asked = question(relu_mlp, 3, loss=mn.Loss("margin"))
    CALLS[name](asked, time_limit=None)
    for given in (0, -1, np.nan, "8"):
        with pytest.raises(InputError, match=LIMIT_EXPECTED):
            CALLS[name](asked, time_limit=given)


@pytest.mark.parametrize("formulation", [{"relu": "big-m"}, {"relu": "frozen"}])
def test_without_time_to_write_the_program_there_is_a_result_without_a_point(formulation, monkeypatch):
    asked, backend = replace(question(relu_mlp, 3), formulation=formulation), Counting()
    TickingClock(monkeypatch)
    found = asked.solve(backend, time_limit=2)
    assert (found.scores, found.result.status, found.result.verified) == (None, mn.Status.TIME_LIMIT, False)
    assert found.result.message.startswith("the time limit ended before mipnet could ")
    assert [gate.name for gate in found.gates] == [gate.name for gate in mn.find_gates(asked.network)]
    parts = by_class(asked, backend=backend, time_limit=2)
    assert parts.scores is None
    assert {part.result.status for part in parts.parts} == {mn.Status.TIME_LIMIT}
    assert backend.opened == 0
    with pytest.raises(TimeLimitReached):
        weight_path(asked, (1.0, 2.0), time_limit=2)


def test_a_path_ends_with_the_time(monkeypatch):
    asked, weights = question(relu_mlp, 3, loss=mn.Loss("margin")), tuple(float(weight) for weight in range(1, 30))
    clock = TickingClock(monkeypatch)
    whole = weight_path(asked, weights, time_limit=1e9)
    taken, clock.readings = clock.readings, 0
    part = weight_path(asked, weights, time_limit=taken / 2)
    assert 0 < len(part.points) < len(whole.points) == len(weights)
    assert clock.readings <= taken / 2 + 60
    assert [point.value for point in part.points] == list(weights[: len(part.points)])
    assert not part.interrupted


def test_heads_are_trained_as_far_as_the_time_allows_and_it_is_said(monkeypatch):
    asked, training = layered()
    clock = TickingClock(monkeypatch)
    clock.moves = 0.0
    full = by_layer(asked, replace(training, epochs=4), time_limit=1)
    assert [len(head.losses) for head in full.heads.values()] == [4] * len(full.heads)
    clock.moves = 1.0
    with pytest.warns(RuntimeWarning, match=r"was trained for 0 of 4 epochs, because of the time limit: its scores may mislead"):
        short = by_layer(asked, replace(training, epochs=4), time_limit=12)
    assert [len(head.losses) for head in short.heads.values()] == [0] * len(full.heads)
    with pytest.raises(TimeLimitReached, match="compute what the auxiliary heads read"):
        by_layer(asked, training, time_limit=1)


def test_training_ends_with_the_time(monkeypatch):
    images, labels = torch.rand(64, 5), torch.randint(0, 3, (64,))
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    clock = TickingClock(monkeypatch)
    losses = mn.train(module, images, labels, settings=mn.TrainingSettings(epochs=10, batch=16, time_limit=14))
    assert len(losses) == 3  # of four batches each
    assert clock.readings <= 20
    shared = mn.TrainingSettings(epochs=6, batch=16, time_limit=10)
    clock.readings = 0
    prune_while_training(module, lambda small: xr.Dataset(), images, labels, PruningSchedule(9), settings=shared)
    assert clock.readings <= 12


def test_networks_that_are_not_retrained_in_time_have_no_rows(monkeypatch):
    clock = TickingClock(monkeypatch)
    whole = retrained(time_limit=1e9)
    assert (len(whole.rows), whole.stopped) == (3, False)
    each = clock.readings // 3
    for count in (1, 2):
        table = retrained(time_limit=count * each + 2)
        assert (table.rows, table.stopped, table.interrupted) == (whole.rows[:count], True, False)
        assert f"stopped at the time limit: {count} networks were finished" in str(table)
    with pytest.raises(TimeLimitReached, match="retrain the first network"):
        retrained(time_limit=2 * each // 3)


def test_learning_ends_with_the_time(monkeypatch):
    TickingClock(monkeypatch)
    whole = learned(time_limit=1e9).history
    assert (whole.sizes["epoch"], whole.attrs["stopped"]) == (4, False)
    with pytest.warns(RuntimeWarning, match="learning was stopped by the time limit after 2 of 4 epochs: the module and the masks are"):
        late = learned(time_limit=24).history
    assert (late.attrs["stopped"], late.attrs["interrupted"]) == (True, False)
    assert late.equals(whole.isel(epoch=slice(2)))
    with pytest.raises(TimeLimitReached, match="learn for one epoch"):
        learned(time_limit=20)


@pytest.mark.parametrize(
    "name",
    [
        *("activation", "group"),
        *(pytest.param(each, marks=pytest.mark.sweep) for each in ("taylor", "fisher", "snip", "sipp", "pfp", "torch-pruning")),
    ],
)
def test_scores_of_rivals_end_with_the_time(name, monkeypatch):
    asked = question(relu_mlp, 3)
    gates, images = mn.find_gates(asked.network), np.repeat(np.asarray(asked.images), 400, axis=0)
    if name == "torch-pruning":
        pytest.importorskip("torch_pruning")
    score = partial(RIVALS[name].scores, asked.network, gates, images, np.zeros(len(images), int))
    clock = TickingClock(monkeypatch)
    with scored_until(Deadline(clock.now + 2)), pytest.raises(TimeLimitReached, match="score the units"):
        score()


def test_steps_of_pruning_end_with_the_time(monkeypatch):
    g, shares = np.random.default_rng(0), (0.1, 0.2, 0.3, 0.4, 0.5)
    layers = [("a", dense(g, 40, 6)), ("r", mn.ReLU()), ("b", dense(g, 3, 40))]
    network, images = mn.Network.build((6,), layers), g.uniform(size=(200, 6))
    given = network, images, network.forward(images).argmax(axis=1)
    clock = TickingClock(monkeypatch)
    whole = mn.prune_stepwise(*given, shares=shares, hard=0.0, time_limit=1e9)
    assert not whole.stopped
    every = range(4, clock.readings, max(1, clock.readings // 12))
    parts = [mn.prune_stepwise(*given, shares=shares, hard=0.0, time_limit=limit) for limit in every]
    counts = [len(part.steps) for part in parts]
    assert counts == sorted(counts)
    assert any(0 < count < len(whole.steps) for count in counts)
    assert all(part.stopped for part, count in zip(parts, counts, strict=True) if count < len(whole.steps))
    assert not any(part.interrupted for part in parts)
    unchecked = "the mask was not compared with random ones, because of the time limit"
    assert all(unchecked in part.warnings for part in parts if part.stopped and part.steps)
    with pytest.raises(TimeLimitReached, match="run the network on all images"):
        mn.prune_stepwise(*given, shares=shares, hard=0.0, time_limit=1)


IN_PARTS = {
    "accuracy": lambda asked, x, y, end: accuracy(asked.network, x, y, time_limit=end),
    "curvature": lambda asked, x, y, end: mn.prune_stepwise(asked.network, x, y, shares=(0.1,), time_limit=end),
    "freeze": lambda asked, x, y, end: freeze(asked.network, mn.find_gates(asked.network), x, end),
    "scores": lambda asked, x, y, end: scored(asked, x, y, end),
    "evaluate": lambda asked, x, y, end: evaluate(nn.Linear(x.shape[1], len(y)).double(), x, y, time_limit=end),
}


def scored(asked, x, y, end):
    with scored_until(end):
        RIVALS["activation"].scores(asked.network, mn.find_gates(asked.network), x, y)


@pytest.mark.parametrize("name", ["accuracy", *(pytest.param(each, marks=pytest.mark.sweep) for each in list(IN_PARTS)[1:])])
def test_the_clock_is_asked_between_the_images_of_a_large_network(name, monkeypatch):
    asked, g = question(relu_mlp, 3), np.random.default_rng(0)
    x, y = g.uniform(size=(20, *asked.network.input_shape)), np.arange(20) % asked.network.output_shape[0]
    clock = TickingClock(monkeypatch)
    IN_PARTS[name](asked, x, y, Deadline(1e9))
    few, clock.readings = clock.readings, 0
    monkeypatch.setattr(pass_cost, "PASS_MULTIPLICATIONS_MAX", 1)
    IN_PARTS[name](asked, x, y, Deadline(1e9))
    assert clock.readings >= few + 19


def test_the_program_of_a_step_is_not_waited_for():
    units, gates = 600, (mn.Gate("a", 600, "a_unit", ("a",), ("a",)),)
    hessian = np.random.default_rng(0).normal(size=(units, units))
    given = gates, np.ones(units), Curvature(0.0, np.zeros(units), hessian @ hessian.T), np.ones(units), 3.0
    with pytest.raises(TimeLimitReached, match="write the program of a step"):
        StepProgram(*given, Deadline(0.0))
    assert StepProgram(*given, Deadline(1e18), written=False).search().sum() == units - 3


def test_rivals_that_are_not_finished_have_no_rows(monkeypatch):
    asked = question(relu_mlp, 3, loss=mn.Loss("margin"))
    clock = TickingClock(monkeypatch)
    whole = compare(asked, time_limit=1e9)
    assert (whole.methods, whole.left_out) == (("mip", "magnitude", "random"), ())
    found = {}
    for limit in range(clock.readings // 2, clock.readings, 2):
        table = compare(asked, time_limit=limit)
        assert (*table.methods, *table.left_out) == whole.methods
        found[table.left_out] = table
    assert set(found[("random",)].beaten(whole.targets[0])) == {"magnitude"}
