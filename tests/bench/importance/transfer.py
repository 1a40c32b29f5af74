"""Lucky sub-networks: the mask of a network trained on one data set, retrained on the other from the weights before any training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

from mipnet.pruning.rivals.lucky_subnetworks import LUCKY_KINDS, lucky
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import at_share
from mipnet.readers.data import Dataset
from tests.bench.importance.judge import commit
from tests.bench.importance.page import LABELS, Rows, spread, table
from tests.bench.importance.search import Case, Setting, solved
from tests.bench.importance.stability import SHARES, WEIGHTS
from tests.bench.trained import load_split, make

EPOCHS = {"fc3": 10, "lenet5": 5}
IMAGES = 500
OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}


def jobs() -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured and kept, by name."""
    return {f"lucky-{source}-{net}-{seed}": partial(transfer, source, net, seed) for net in SHARES for seed in range(3) for source in OTHER}


def transfer(source: str, net: str, seed: int) -> dict[str, Any]:
    """Test accuracies on the other data set: the whole network, the mask found on ``source``, and a random one of the same counts.

    All three start from the weights that the trained network of ``source`` started from.
    """
    case, target = Case(source, net, seed), OTHER[source]
    scores = solved(case.network, *case.images(IMAGES), Setting(IMAGES, 1, WEIGHTS[net])).scores
    masks = at_share(case.network, case.gates, scores, SHARES[net])
    split = load_split(target, seed)
    known, test = (Dataset(*part, name=target, classes=10) for part in (split.train, split.test))
    table = lucky(make(net, seed), masks, known, test, seeds=(seed,), epochs=EPOCHS[net])
    return {
        "source": source,
        "target": target,
        "net": net,
        "seed": seed,
        "share": pruned_share(case.network, case.gates, masks),
        "epochs": EPOCHS[net],
        **{kind: table.accuracies(kind)[0] for kind in LUCKY_KINDS},
        "commit": commit(),
    }


def section(rows: Rows) -> str:
    """The table of the page."""
    groups = dict.fromkeys((row["source"], row["net"]) for row in rows)
    lines = [_line([row for row in rows if (row["source"], row["net"]) == key]) for key in groups]
    epochs = ", ".join(f"{count} ({LABELS[net]})" for net, count in EPOCHS.items())
    return f"""## Lucky sub-networks

A mask is computed on one data set (from {IMAGES} images). The masked network is then trained on the other data set **from its initial
weights**. It is compared with the full network and with a random mask with the same number of units per layer. All three use the same
batches in the same order, for {epochs} epochs; the recipe of the tables above has 30. Accuracy on the test set in percent, mean and
standard deviation over seeds.

{table("network | mask from | seeds | pruned (%) | whole | lucky | random | lucky is better than random", lines)}"""


def _line(group: Rows) -> str:
    first, kinds = group[0], ([row[kind] for row in group] for kind in LUCKY_KINDS)
    wins = sum(row["lucky"] > row["random"] for row in group)
    cells = (
        f"{LABELS[first['target']]} {LABELS[first['net']]}",
        LABELS[first["source"]],
        ", ".join(str(row["seed"]) for row in group),
        f"{100 * mean(row['share'] for row in group):.1f}",
        *(spread(values) for values in kinds),
        f"{wins} of {len(group)}",
    )
    return " | ".join(cells)
