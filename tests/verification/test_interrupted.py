"""Ctrl-C at every stage keeps what is proven: the bounds hold, and are those of the stages before."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.runs import bounds as bounds_run
from mipnet.bounds import propagation
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.solving import tightening
from mipnet.verification import distortion_search, margin
from mipnet.verification.two_networks import agree_on_class, agreement, compression
from tests.interrupts import CtrlCAtTheEnd
from tests.nets import dense

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


def network(seed: int) -> mn.Network:
    g = np.random.default_rng(seed)
    layers = [("fc1", dense(g, 12, 3)), ("relu1", mn.ReLU()), ("fc2", dense(g, 12, 12)), ("relu2", mn.ReLU()), ("fc3", dense(g, 3, 12))]
    return mn.Network.build((3,), layers)


BOX = mn.LInf(np.zeros((1, 3)), 1.0)


def interrupt_in(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> None:
    """Send SIGINT when this function begins."""
    plain = getattr(place, name)

    def interrupted(*given, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return plain(*given, **more)

    monkeypatch.setattr(place, name, interrupted)


@cache
def agreement_in_peace():
    return mn.agree(network(0), network(1), BOX)


@pytest.mark.parametrize("stage", ["bounds_of_both", "_joint_difference"])
def test_agree(monkeypatch, stage):
    whole = agreement_in_peace()
    interrupt_in(monkeypatch, agreement, stage)
    found = mn.agree(network(0), network(1), BOX)
    assert (whole.interrupted, found.interrupted, found.method) == (False, True, "separate")
    assert found.largest <= whole.largest + 1e-9
    assert whole.bound <= found.bound < math.inf


@pytest.mark.parametrize("stage", ["bounds_of_both", pytest.param("join_networks", marks=pytest.mark.sweep), "class_clauses"])
def test_agree_on_class(monkeypatch, stage):
    """What the bounds leave is said; where they leave one class, the same in both networks, the proof is kept."""
    one, other = network(0), network(1)
    interrupt_in(monkeypatch, agree_on_class, stage)
    found = mn.agree_on_class(one, other, BOX)
    assert (found.agree, found.interrupted, found.method) == (None, True, None)
    left = next(text for text in found.warnings if "can only name a class of" in text)
    classes = [{int(word) for word in each.split(", ")} for each in re.findall(r"of ([0-9, ]*[0-9])", left)]
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    for each, named in zip((one, other), classes, strict=True):
        assert set(each.forward(x).argmax(axis=1)) <= named
    clear = mn.LInf(np.zeros((1, 3)), 1e-3)
    found = mn.agree_on_class(one, one, clear)
    assert (found.agree, found.interrupted, found.method) == (True, True, "separate")
    found = mn.agree_on_class(one, biased(one, (int(one.forward(np.zeros((1, 3))).argmax()) + 1) % 3), clear)
    assert found.agree is None
    assert found.warnings


def biased(given, label):
    """The network with a last bias that makes it name one class."""
    layers = [(node.name, node.layer) for node in given.nodes]
    last = given.output.layer
    return mn.Network.build(given.input_shape, [*layers[:-1], ("fc3", mn.Dense(last.weight, last.bias.numpy() + 100 * np.eye(3)[label]))])


@pytest.mark.parametrize("stage", ["search", "decide_states"])
def test_compress(monkeypatch, stage):
    whole = network(0)
    interrupt_in(monkeypatch, compression.ReluStates if stage == "search" else compression, stage)
    found = mn.compress(whole, BOX)
    assert (found.agreement.interrupted, found.complete, found.agreement.agree) == (True, False, True)
    x = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    np.testing.assert_allclose(found.network.forward(x), whole.forward(x), atol=1e-6)


def distortion():
    image, label = np.zeros(3), int(network(0).forward(np.zeros((1, 3))).argmax())
    return mn.minimum_distortion(network(0), image, label, upper=2.0, clip=(-2, 2))


distortion_in_peace = cache(distortion)


@pytest.mark.parametrize("stage", ["attack", "halve", "solve", "halve_by_verification"])
def test_distortion(monkeypatch, stage):
    whole = distortion_in_peace()
    interrupt_in(monkeypatch, distortion_search.DistortionSearch, stage)
    found = distortion()
    assert found.interrupted or (stage == "halve_by_verification" and found.gap <= 1e-3)
    assert not whole.interrupted
    assert found.lower <= whole.upper + 1e-9
    assert found.upper >= whole.lower - 1e-9
    assert found.lower > 0 or stage in ("attack", "halve")


@pytest.mark.parametrize("stage", ["propagate", "ClauseProgram"])
def test_margin(monkeypatch, stage):
    whole = mn.maximum_margin(network(0), BOX, 0)
    interrupt_in(monkeypatch, margin, stage)
    found = mn.maximum_margin(network(0), BOX, 0)
    assert (whole.interrupted, found.interrupted) == (False, True)
    assert found.lower <= whole.upper + 1e-9
    assert found.upper >= whole.lower - 1e-9
    assert (found.upper < math.inf) == (stage == "ClauseProgram")


def test_margin_whose_solve_ends_as_ctrl_c_comes():
    found = mn.maximum_margin(network(0), BOX, 0, backend=CtrlCAtTheEnd())
    assert found.interrupted


def test_comparison():
    data = mn.load("digits", split="train", shape=(64,))
    g = np.random.default_rng(0)
    net = mn.Network.build((64,), [("fc1", dense(g, 20, 64)), ("relu1", mn.ReLU()), ("fc2", dense(g, 10, 20))])
    gates, begun = mn.find_gates(net), []

    def on_rival(rival):
        begun.append(rival)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    few = mn.LabelledImages(data.images[:50], data.labels[:50])
    scores = mn.prune_stepwise(net, few.images, few.labels, shares=(0.1,)).scores()
    settings = mn.ComparisonSettings(on_rival=on_rival)
    table = mn.compare(net, gates, scores, few, few, rivals=["magnitude", "activation", "random"], shares=[0.2], settings=settings)
    assert table.interrupted
    assert table.methods == ("mip", "magnitude")
    assert table.beaten(0.2).keys() == {"magnitude"}


@pytest.mark.parametrize("method", ["lp", pytest.param("mip", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("stage", ["crown", "run_all", "check_by_samples", pytest.param("solve_job", marks=pytest.mark.sweep)])
def test_bounds_that_are_tightened(monkeypatch, capsys, stage, method):
    """Interrupted in a layer, in a program, and in the check at the end: the bounds so far are shown, with exit status 130."""
    interrupt_in(monkeypatch, tightening, stage)
    words = ["bounds", str(EXAMPLES / "digits.yaml"), "--set", "data.total=2", "--set", "data.per_class=null", "--epsilon", "0.02"]
    assert main([*words, "--method", method, "--json"]) == 130
    record = json.loads(capsys.readouterr().out)
    assert (record["method"], record["interrupted"]) == (method, True)


def test_programs_that_had_ended_are_kept(monkeypatch):
    """Ctrl-C in the second program of the last layer: the bounds of the first one are those without Ctrl-C, and no third one begins."""
    net, region = network(0), mn.LInf(np.repeat([[0.0], [0.1], [0.2]], 3, axis=1), 0.5)
    whole, begun, plain = mn.tighten(net, region, method="lp", time_limit=None), [], tightening.solve_job

    def interrupted(job, deadline):
        if job.bounds.network.output.name == "fc3":
            begun.append(job)
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        return plain(job, deadline)

    monkeypatch.setattr(tightening, "solve_job", interrupted)
    found = mn.tighten(net, region, method="lp", time_limit=None)
    assert (found.interrupted, found.stopped, len(begun)) == (True, True, 2)
    assert "Ctrl-C came before all bounds were computed" in found.warnings[-1]
    one, other = (each.after["fc3"] for each in (whole, found))
    np.testing.assert_allclose(one.lower[0], other.lower[0], atol=1e-6)
    assert float(other.width[1:].sum()) > float(one.width[1:].sum())


@pytest.mark.parametrize("method", ["crown", pytest.param("alpha", marks=pytest.mark.sweep)])
def test_layers_that_are_bounded_keep_their_bounds(monkeypatch, method):
    """Ctrl-C in the last layer: the layers before have the bounds of the method, and the last one those by intervals from these."""
    net, region = network(0), mn.LInf(np.repeat([[0.0], [0.1], [0.2]], 3, axis=1), 0.5)
    whole, plain = mn.propagate(net, region, method=method), getattr(propagation, method)
    loose = mn.propagate(net, region, method="interval")

    def interrupted(known, node, box, wanted):
        if node.name == "fc3":
            os.kill(os.getpid(), signal.SIGINT)
        return plain(known, node, box, wanted)

    monkeypatch.setattr(propagation, method, interrupted)
    found = propagation.propagate_until_ctrl_c(net, region, (), method, NO_DEADLINE)
    assert (found.interrupted, found.stopped, found.method) == (True, True, method)
    for name in ("fc1", "fc2"):
        np.testing.assert_array_equal(found.after[name].lower, whole.after[name].lower)
        np.testing.assert_array_equal(found.after[name].upper, whole.after[name].upper)
    assert (whole.width()["fc2"] < loose.width()["fc2"]) & (found.width()["fc3"] < loose.width()["fc3"])
    assert found.width()["fc3"] >= whole.width()["fc3"]
    with pytest.raises(KeyboardInterrupt):
        mn.propagate(net, region, method=method)


def test_bounds(monkeypatch, capsys):
    interrupt_in(monkeypatch, bounds_run, "tighten")
    assert main(["bounds", str(EXAMPLES / "digits.yaml"), "--method", "lp", "--epsilon", "0.1", "--json"]) == 130
    record = json.loads(capsys.readouterr().out)
    assert (record["method"], record["interrupted"]) == ("interval", True)
    assert main(["bounds", str(EXAMPLES / "digits.yaml"), "--method", "lp", "--epsilon", "0.1"]) == 130
    assert "interrupted, this is what was proven by then" in capsys.readouterr().out


def test_the_command_says_and_writes_what_is_proven(monkeypatch, capsys, tmp_path):
    (tmp_path / "margin.yaml").write_text(
        "mipnet: 1\ntask: margin\nregion: {data: {source: digits}, radius: 0.05, clip: [0, 1]}\n"
        f"network: {{file: {EXAMPLES / 'digits.safetensors'}, input_shape: [64], layers: [{{name: fc1, type: Linear, in_features: 64,"
        " out_features: 50}, {name: relu1, type: ReLU}, {name: fc2, type: Linear, in_features: 50, out_features: 20},"
        " {name: relu2, type: ReLU}, {name: fc3, type: Linear, in_features: 20, out_features: 10}]}\n"
    )
    interrupt_in(monkeypatch, margin, "ClauseProgram")
    assert main(["margin", str(tmp_path / "margin.yaml"), "--output", str(tmp_path / "run")]) == 130
    assert "interrupted: this is what was proven by then" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["interrupted"]
    assert record["lower"] <= record["upper"]
