"""What was asked for: shares of parameters pruned without fine-tuning, and points of accuracy that this may cost."""

from __future__ import annotations

TARGETS = {
    ("fashion-mnist", "fc3"): (0.65, 1.0),
    ("fashion-mnist", "lenet5"): (0.50, 0.7),
    ("mnist", "fc3"): (0.55, 0.7),
    ("mnist", "lenet5"): (0.55, 0.5),
}
"""(share, points) by data and network, mean over seeds."""

BUDGETS = {key: points for key, (_, points) in TARGETS.items()} | {("fashion-mnist", "fc4"): 1.0, ("mnist", "fc4"): 0.7}
"""Points that a mask may cost on the images put aside; FC-4, for which nothing was asked, has those of FC-3."""

WINS, OF = 10, 12
"""In how many of the cases of FC-3 and LeNet-5 the mask should beat each rival."""

FULL_MINUTE, FULL_GIB = 60.0, 4.0
"""Seconds and GiB that LeNet-5 with 1,000 images may take."""

FASTER, CLOSE = 100.0, 1e-3
"""How many times faster than the published program through cvxpy, and how close in the objective."""
