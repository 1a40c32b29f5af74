"""What the harness says of decoupled scores that are known; it measures nothing itself."""

from __future__ import annotations

from typing import Any

from tests.bench.importance.layers_page import jobs, section


def known(net: str, way: str, seed: int = 0, masked: float = 80.0) -> dict[str, Any]:
    shares = [{"share": 0.3, "weight": 5.0, "masked": masked, "random": 60.0, "critical": 50.0}]
    part = {"label": "conv1", "head": 75.0, "build": 1.0, "solve": 2.0, "columns": 20, "cuts": 1000, "status": "optimal"}
    work = {"training": 400.0, "seconds": 250.0, "columns": 1000, "cuts": 2000, "verified": True, "optimal": True, "parameters": 1_011_114}
    said = {"commit": "abc", "date": "2026-01-01", "parts": [part, part | {"label": "fc1", "head": None}]}
    return {"net": net, "seed": seed, "way": way, "reference": 90.0 + seed, "shares": shares, **work, **said}


def test_ways_stand_side_by_side_with_means_over_seeds() -> None:
    text = section([known("lenet5", way, seed, 80.0 + seed) for seed in (0, 1) for way in ("jointly", "by layer")])
    assert "| by layer | 80.50 | 60.00 | 50.00 | 1,000 | 2,000 | 400.0 | 250.0 |" in text
    assert "The network without masks has 90.50 %. Every program ended optimal" in text
    assert "A larger network" not in text


def test_the_larger_network_is_held_against_what_was_asked_for() -> None:
    text = section([known("vgg", "by layer")])
    assert "650 CPU seconds in total, heads included. The target is 600: **missed** by 50 seconds" in text
    assert "| conv1 | 75.0 | 20 | 1,000 | 1.0 | 2.0 | optimal |" in text
    assert "| fc1 | - | 20 |" in text
    assert "**Not every program" in section([known("vgg", "by layer") | {"optimal": False}])


def test_every_way_is_a_job_of_its_own() -> None:
    assert {"layers-lenet5-2-by-class", "layers-vgg-0-by-layer"} <= set(jobs())
