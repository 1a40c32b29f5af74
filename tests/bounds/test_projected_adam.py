"""The steps are those of torch's own Adam, followed by a projection; bounds do not load torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mipnet.bounds.projected_adam import AdamVariable, ProjectedAdam


def test_steps_are_those_of_torch() -> None:
    g = torch.Generator().manual_seed(0)
    start = [torch.rand(6, 4, generator=g, dtype=torch.float64) for _ in range(2)]
    ours, theirs = ([each.clone() for each in start] for _ in range(2))
    adam = ProjectedAdam([AdamVariable(ours[0], 0.25, 1.0), AdamVariable(ours[1], 0.5, torch.inf)], decay=0.9)
    peer = torch.optim.Adam([{"params": [theirs[0]], "lr": 0.25}, {"params": [theirs[1]], "lr": 0.5}])
    for _ in range(12):
        slopes = [torch.randn(6, 4, generator=g, dtype=torch.float64) for _ in range(2)]
        adam.step(slopes)
        for each, slope in zip(theirs, slopes, strict=True):
            each.grad = slope
        peer.step()
        theirs[0].clamp_(0.0, 1.0)
        theirs[1].clamp_(min=0.0)
        for group in peer.param_groups:
            group["lr"] *= 0.9
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    before = [each.clone() for each in ours]
    adam.step([None, slopes[1]])
    assert torch.equal(ours[0], before[0])
    assert not torch.equal(ours[1], before[1])


@pytest.mark.sweep
def test_alpha_bounds_load_no_compiler() -> None:
    code = (
        "import sys, numpy as np, torch, mipnet as mn\n"
        "layers = [('a', mn.Dense(torch.randn(9, 4, dtype=torch.float64), torch.zeros(9, dtype=torch.float64))), ('r', mn.ReLU()),\n"
        "          ('b', mn.Dense(torch.randn(2, 9, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)))]\n"
        "mn.propagate(mn.Network.build((4,), layers), mn.LInf(np.zeros((1, 4)), 1.0), method='alpha')\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
