"""The sections on decoupled scores of the page that `make bench-importance` writes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from tests.bench.importance.layers import COUNT, DRAWS, SHARES, WEIGHTS, jobs
from tests.bench.importance.page import Rows, _verdict, table
from tests.bench.vgg import EPOCHS, IMAGES

__all__ = ["jobs", "section"]

FULL_SECONDS = 600.0
"""CPU seconds that all scores of the larger network may take."""


def section(rows: Rows) -> str:
    """Both tables of accuracies, and what each program of the larger network came to; those that were measured."""
    by_net = {net: [row for row in rows if row["net"] == net] for net in SHARES}
    return "\n".join(write(by_net[net]) for net, write in (("lenet5", _small), ("vgg", _large)) if by_net[net])


def _grouped(rows: Rows) -> list[Rows]:
    return [[row for row in rows if row["way"] == way] for way in dict.fromkeys(row["way"] for row in rows)]


def _accuracies(rows: Rows) -> str:
    shares = [one["share"] for one in rows[0]["shares"]]
    heads = "scored | " + " | ".join(f"{100 * share:.0f} % pruned | random | critical removed" for share in shares)
    return table(f"{heads} | columns | rows | heads (s) | programs (s)", [_line(group) for group in _grouped(rows)])


def _line(group: Rows) -> str:
    def average(at: int, key: str) -> str:
        return f"{mean(row['shares'][at][key] for row in group):.2f}"

    cells = [average(at, key) for at in range(len(group[0]["shares"])) for key in ("masked", "random", "critical")]
    work = [f"{mean(row[key] for row in group):,.0f}" for key in ("columns", "cuts")]
    return " | ".join([group[0]["way"], *cells, *work, *(f"{mean(row[key] for row in group):.1f}" for key in ("training", "seconds"))])


def _reference(rows: Rows) -> str:
    return f"{mean({row['seed']: row['reference'] for row in rows}.values()):.2f} %"


def _sound(rows: Rows) -> str:
    if all(row["optimal"] and row["verified"] for row in rows):
        return "Every program ended optimal, within a gap of 0.1 %, and verified."
    return "**Not every program ended optimal and verified.**"


def _made(rows: Rows) -> str:
    return "Commit " + ", ".join(sorted({f"`{row['commit']}` ({row['date']})" for row in rows}))


def _small(rows: Rows) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    return f"""## Decoupled: by class, by layer, jointly

LeNet-5 on Fashion-MNIST, seeds {seeds}, mean: accuracy on the test set in percent. The columns give the share of the parameters
pruned; units are ranked over all layers. All methods use the same {COUNT} images; the heads are trained on all 50,000 training images.
The loss weight is the one of {_weights()} with the best accuracy at that share on the validation images. *Random* ({DRAWS} draws) and
*critical removed* prune the same number of units per layer. *Columns* and *rows* (added) are sums over the programs, *seconds* are CPU
seconds at the loss weight that took longest. The network without masks has {_reference(rows)}. {_sound(rows)} {_made(rows)}.

{_accuracies(rows)}"""


def _weights() -> str:
    *first, last = (f"{weight:g}" for weight in WEIGHTS)
    return f"{', '.join(first)} and {last}"


def _large(rows: Rows) -> str:
    layered = next(row for row in rows if row["way"] == "by layer")
    total = layered["training"] + layered["seconds"]
    missed = [f"{total - FULL_SECONDS:.0f} seconds"] if total > FULL_SECONDS else []
    return f"""## A larger network

A network in the style of VGG: 3x3 convolutions 32-32-64-64-128-128 with batch norm, max pooling after each pair, dense layers
512-256-10, in total {layered["parameters"]:,} parameters. It was trained on {IMAGES:,} images of Fashion-MNIST for {EPOCHS} epochs
with Adam, seed {layered["seed"]}, and its heads on the same images. The columns are those of the table above. The network without
masks has {_reference(rows)}. {_sound(rows)} {_made(rows)}.

{_accuracies(rows)}
The scores by layer took {total:.0f} CPU seconds in total, heads included. The target is {FULL_SECONDS:.0f}: {_verdict(missed)}.
The next table lists the stages. *Head* is the accuracy of the head on the training images; the last stage ends with the network itself:

{table("stage | head (%) | columns | rows added | build (s) | solve (s) | status", _stages(layered["parts"]))}"""


def _stages(parts: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{part['label']} | {'-' if part['head'] is None else format(part['head'], '.1f')} | {part['columns']} | {part['cuts']:,}"
        f" | {part['build']:.1f} | {part['solve']:.1f} | {part['status']}"
        for part in parts
    ]
