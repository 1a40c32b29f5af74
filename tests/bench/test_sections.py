"""What the harness of importance says of masks that are known; it measures nothing itself."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.bench.importance.stability import overlap, section
from tests.bench.importance.transfer import section as lucky_section


def mask(*gone: int) -> xr.Dataset:
    kept = np.ones(6, dtype=bool)
    kept[list(gone)] = False
    return xr.Dataset({"fc1": ("fc1_unit", kept[:4]), "fc2": ("fc2_unit", kept[4:])})


def test_overlap_is_the_mean_over_pairs_of_what_both_prune_in_what_either_prunes() -> None:
    assert overlap([mask(0, 4), mask(0, 4)]) == 1
    assert overlap([mask(0, 1), mask(2, 5)]) == 0
    assert overlap([mask(0, 1, 4), mask(0, 4, 5), mask(0)]) == pytest.approx((2 / 4 + 1 / 3 + 1 / 3) / 3)


def test_the_sections_say_what_was_measured() -> None:
    known = {"overlap": 0.5, "chance": 0.25, "always": 0.125, "reference": 90.0, "joined": 89.5, "random": 60.0, "seconds": 1.0}
    row = {"source": "mnist", "net": "fc3", "images": 10, "share": 0.6, "accuracies": [88.0, 89.0], **known}
    assert "| MNIST FC-3, 10 images | 60 | 0.50 | 0.25 | 0.12 | 90.00 | 88.50 ± 0.50 | 88.00 | 89.50 | 60.00 | 1.0 |" in section([row])
    runs = [
        {
            "source": "mnist",
            "target": "fashion-mnist",
            "net": "fc3",
            "seed": k,
            "share": 0.6,
            "full": 90.0,
            "lucky": 89.0 + k,
            "random": 89.5,
        }
        for k in range(2)
    ]
    wanted = "| Fashion-MNIST FC-3 | MNIST | 0, 1 | 60.0 | 90.00 ± 0.00 | 89.50 ± 0.50 | 89.50 ± 0.00 | 1 of 2 |"
    assert wanted in lucky_section(runs)
