"""Bounds within a memory limit: fewer rows at once, then a simpler method that the bounds name, and a refusal only where nothing fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.bounds import propagation
from mipnet.bounds.crown import BackwardMethod, bounds_in_parts, lower_bounds
from mipnet.bounds.crown_rows import CrownRows, KnownBounds
from mipnet.bounds.interval import Interval
from mipnet.errors import MemoryLimitReached
from tests.limits.room import room
from tests.nets import dense, make, mlp


def deep(layers: int = 60, width: int = 2000) -> tuple[mn.Network, mn.Box]:
    """A chain of many layers that act on each element alone, and one number that reads its beginning and its end."""
    parts = [(f"scale{k}" if k % 2 == 0 else f"act{k}", mn.Scale(1.0, 0.0) if k % 2 == 0 else mn.ReLU()) for k in range(layers)]
    sums = [("sum", mn.Add((0.5, -1.0)), ("scale0", f"act{layers - 1}")), ("fc", mn.Dense(np.ones((1, width)) / width))]
    return mn.Network.build((width,), [*parts, *sums]), mn.Box(np.full((1, width), -1.0), np.full((1, width), 0.6))


def width_of(bounds: mn.Bounds) -> float:
    return float(bounds.after["fc"].width)


def test_optimised_bounds_that_do_not_fit_leave_those_of_crown_and_say_so(tmp_path: Path) -> None:
    network, region = deep()
    crown, alpha = (mn.propagate(network, region, method=method) for method in ("crown", "alpha"))
    assert width_of(alpha) < width_of(crown) - 1e-3
    assert alpha.warnings == ()
    with room(6e6):
        limited = mn.propagate(network, region, method="alpha")
    assert width_of(limited) == pytest.approx(width_of(crown))
    (said,) = limited.warnings
    assert said.startswith("`fc` keeps looser bounds: optimised linear bounds of 1 of its elements would take 12.7 MB, and ")
    limited.save(tmp_path / "bounds.npz")
    assert mn.load_bounds(tmp_path / "bounds.npz", network, region).warnings == limited.warnings


def test_backward_bounds_that_do_not_fit_leave_intervals_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    network, region = deep(4)
    monkeypatch.setattr("mipnet.bounds.crown.CROWN_COEFFICIENT_BYTES", 10**5)
    with room(6e6):
        limited = mn.propagate(network, region, method="crown")
    assert width_of(limited) == width_of(mn.propagate(network, region, method="interval"))
    assert limited.warnings[0].startswith("`fc` keeps looser bounds: linear backward bounds of 1 of its elements would take 200 MB, and ")


def test_fewer_rows_are_computed_at_once_and_the_bounds_are_the_same() -> None:
    network, g = make(mlp, 0)
    region = mn.LInf(g.normal(size=(40, *network.input_shape)), 0.5)
    bounds, node = mn.propagate(network, region, method="interval"), network["fc2"]
    known = KnownBounds(network, frozenset(), dict(bounds.after))
    counts: list[int] = []

    def bound(known: KnownBounds, rows: CrownRows, box: Interval) -> torch.Tensor:
        counts.append(len(rows))
        return lower_bounds(known, rows, box)

    def found(row_bytes: float) -> Interval:
        counts.clear()
        wanted = torch.ones(40, *node.shape, dtype=torch.bool)
        return bounds_in_parts(known, node, bounds.after["fc2"], wanted, BackwardMethod("bounds", bound, lambda network, node: row_bytes))

    whole, rows = found(1.0), 80 * node.shape[0]
    assert counts == [rows]
    with room(10e6):
        parts = found(1e6)
    assert len(counts) > rows // 12
    assert sum(counts) == rows
    torch.testing.assert_close(parts.lower, whole.lower)
    torch.testing.assert_close(parts.upper, whole.upper)
    assert not known.simpler


def test_a_node_with_too_many_coefficients_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network, region = deep(4)
    assert mn.propagate(network, region).warnings == ()
    monkeypatch.setattr(propagation, "AUTO_COEFFICIENTS_MAX", 10)
    (said,) = mn.propagate(network, region).warnings
    assert said == (
        "`fc` keeps looser bounds: linear backward bounds would need 2.0e+04 coefficients, more than 1e+01; the method `crown` computes"
        " them all the same"
    )
    assert mn.propagate(network, region, method="crown").warnings == ()


def test_boxes_of_more_samples_than_fit_are_refused_with_all_figures() -> None:
    g = np.random.default_rng(0)
    network = mn.Network.build((20,), [("fc1", dense(g, 400, 20)), ("act1", mn.ReLU()), ("fc2", dense(g, 4, 400))])
    region = mn.LInf(g.random((3000, 20)), 0.1)
    said = r"^the bounds of 3,000 samples at every node would take about 154 MB; the memory limit is .*: give fewer samples, or raise"
    with room(50e6), pytest.raises(MemoryLimitReached, match=said):
        mn.propagate(network, region, method="interval")


def test_the_copy_of_large_weights_counts() -> None:
    network = mn.Network.build((2000,), [("fc", mn.Dense(np.ones((2000, 2000))))])
    with room(20e6), pytest.raises(MemoryLimitReached, match="the bounds of 1 samples at every node would take about 32"):
        mn.propagate(network, mn.LInf(np.zeros((1, 2000)), 0.1), method="interval")


def test_bounds_that_were_stopped_say_so() -> None:
    network, region = deep(4)
    bounds = mn.propagate(network, region)
    stopped = mn.Bounds(network, region, bounds.after, method="crown", stopped=True)
    assert bounds.warnings == ()
    (said,) = stopped.warnings
    assert said == "the time limit ended before all bounds were computed: they hold, and some are looser than `crown` gives"
