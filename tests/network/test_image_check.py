"""Images that are in another scale than those of the training, and networks that guess, are said; what is all right is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_network
from mipnet.limits.result_warnings import collected_warnings
from mipnet.network.image_check import is_chance, warn_of_images
from mipnet.readers.data import Dataset
from tests.nets import dense

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA_FOLDER = os.environ.get("MIPNET_DATA")


@pytest.fixture(scope="module", params=["digits", "digits_cnn"])
def trained(request: pytest.FixtureRequest) -> tuple[mn.Network, Dataset]:
    """A network that was trained on images in [0, 1], and images that it was not trained on."""
    network = read_network(load_spec(EXAMPLES / f"{request.param}.yaml"))
    return network, mn.load("digits", split="test", shape=network.input_shape)


def said(network: mn.Network, images: np.ndarray, labels: np.ndarray) -> list[str]:
    with collected_warnings() as found:
        warn_of_images(network, images, labels)
    return found


@pytest.mark.parametrize("count", [3, 10, 40, 359])
def test_nothing_is_said_of_images_in_their_own_scale(trained: tuple[mn.Network, Dataset], count: int) -> None:
    network, data = trained
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(len(data))[:count]
        assert said(network, data.images[some], data.labels[some]) == []


@pytest.mark.parametrize("factor", [16.0, 255.0])
def test_images_as_they_are_stored_look_unscaled(trained: tuple[mn.Network, Dataset], factor: float) -> None:
    network, data = trained
    (text,) = said(network, factor * data.images, data.labels)
    assert text.startswith("the images look unscaled: the network names the label of ")
    assert f"divided by {factor:g}" in text


def test_images_that_were_divided_twice_look_unscaled(trained: tuple[mn.Network, Dataset]) -> None:
    network, data = trained
    (text,) = said(network, data.images / 255, data.labels)
    assert text.startswith("the images look unscaled: the network names the label of ")
    assert "% if they are multiplied by 255" in text


def standardised() -> tuple[mn.Network, np.ndarray, np.ndarray]:
    """A network of two classes for images of mean 0, and brighter ones, all of which are of one class for it."""
    g = np.random.default_rng(0)
    x = g.normal(size=(200, 6))
    network = mn.Network.build((6,), [("fc", mn.Dense(np.stack([np.ones(6), -np.ones(6)])))])
    return network, 5 + x, (x.sum(axis=1) < 0).astype(np.int64)


def test_images_that_should_be_standardised_look_unscaled() -> None:
    (text,) = said(*standardised())
    assert "% if they are standardised, (x - 4.9" in text


@pytest.mark.parametrize(
    "spoil",
    [lambda x, y: (np.random.default_rng(0).random(x.shape), y), lambda x, y: (x, np.random.default_rng(0).permutation(y))],
    ids=["noise", "labels of other images"],
)
def test_a_network_that_guesses_is_named(trained: tuple[mn.Network, Dataset], spoil: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    network, data = trained
    (text,) = said(network, *spoil(data.images, data.labels))
    assert text.startswith("the network names the label of ")
    assert "no more than always naming the most frequent one would" in text
    assert "the images range from " in text


def test_an_untrained_network_guesses() -> None:
    g = np.random.default_rng(0)
    network = mn.Network.build((64,), [("fc1", dense(g, 20, 64)), ("act", mn.ReLU()), ("fc2", dense(g, 10, 20))])
    data = mn.load("digits")
    assert said(network, data.images, data.labels)[0].startswith("the network names the label of ")


def test_what_cannot_be_tested_is_not_judged() -> None:
    g = np.random.default_rng(0)
    network = mn.Network.build((6,), [("fc", dense(g, 3, 6))])
    x = g.random((50, 6))
    assert said(network, x[:3], np.array([0, 1, 2])) == []
    assert said(network, x, np.zeros(50, dtype=np.int64)) == [], "one class alone"
    one = mn.Network.build((6,), [("fc", dense(g, 1, 6))])
    assert said(one, x, np.zeros(50, dtype=np.int64)) == [], "no classes"


def test_chance_is_told_from_knowledge_only_where_the_number_of_images_allows_it() -> None:
    right = np.array([True] * 10 + [False] * 90)
    assert is_chance(right, 0.1)
    assert not is_chance(np.array([True] * 60 + [False] * 40), 0.1)
    assert not is_chance(np.array([True] * 25 + [False] * 75), 0.1), "better than chance"
    assert not is_chance(np.array([False] * 3), 0.3), "three images show nothing"


@pytest.mark.parametrize("certainty", [0.3, 1.0, 3.0])
def test_a_network_that_was_trained_on_stored_images_takes_them(trained: tuple[mn.Network, Dataset], certainty: float) -> None:
    """Networks are often too certain of what they name, up to logits that are three times too large."""
    network, data = trained
    scales = [("scale", mn.Scale(torch.tensor(1 / 16), torch.tensor(0.0)))]
    last = ("certainty", mn.Scale(torch.tensor(certainty), torch.tensor(0.0)))
    kept = [(node.name, node.layer, tuple("scale" if name == "input" else name for name in node.inputs)) for node in network.nodes]
    stored = mn.Network.build(network.input_shape, [*scales, *kept, last])
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(len(data))[:100]
        assert said(stored, 16 * data.images[some], data.labels[some]) == []


@pytest.mark.sweep
@pytest.mark.skipif(DATA_FOLDER is None, reason="MIPNET_DATA names no folder with the data set")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_other_images_than_those_of_the_examples(name: str) -> None:
    train, test = (mn.load(name, DATA_FOLDER, split) for split in ("train", "test"))
    g = np.random.default_rng(1)
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    some = g.permutation(len(train))[:2000]
    mn.train(module, train.images[some].reshape(-1, 784), train.labels[some], epochs=4)
    network = mn.from_torch(module, torch.zeros(1, 784))
    for _ in range(5):
        shown = g.permutation(len(test))[:100]
        images, labels = test.images[shown].reshape(-1, 784), test.labels[shown]
        assert said(network, images, labels) == []
        assert len(said(network, 255 * images, labels)) == 1
