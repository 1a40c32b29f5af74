"""The page that `make bench-importance` writes: docs/importance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, pstdev
from typing import Any

from tests.bench.importance.judge import JUDGED_RIVALS, MOST
from tests.bench.importance.sizes import EPSILON, LIMIT, slope
from tests.bench.importance.targets import CLOSE, FASTER, FULL_GIB, FULL_MINUTE, OF, TARGETS, WINS
from tests.bench.measure import ROOT
from tests.bench.registry import where_measured

PAGE = ROOT / "docs" / "importance.md"
LABELS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "fc3": "FC-3", "fc4": "FC-4", "lenet5": "LeNet-5"}
Rows = Sequence[dict[str, Any]]

HEAD = """# Importance, measured

This page is written by `make bench-importance`, which needs `MIPNET_DATA`, the folder of the MNIST and Fashion-MNIST files. The
networks are those of ElAraby, Wolf and Carvalho (CPAIOR 2023), trained by their recipe (RMSprop 1e-3, batch 128, 30 epochs, no
augmentation): FC-3 (784-300-100-10), FC-4 (784-200-100-100-10) and LeNet-5, here on 28x28 images.

Of the 60,000 training images, 10,000 are validation images, drawn at random with the seed. They are used neither for training nor for
scores. Masks are computed in two ways, from the same number of training images per class. *One look* is one importance program in
reduced space with `pattern: free`, on a few hundred images, with thresholds in steps of 2 % of the parameters. *Stepwise* is
`mipnet.prune_stepwise`, in steps of 2.5 %, on thousands of images. Each case has a target: the accuracy that may be lost, in points.
Among the settings below and their steps, we choose the one that prunes most within the target **on the validation images**; if there
is none, the one that loses least. The test set is not used for these choices. Parameters are counted in the smaller network, where
units are removed with their biases and outgoing weights. Seconds are CPU seconds.

The test set was used more than once in two cases. LeNet-5 on MNIST was first run with 5,000 images, did not reach its target share,
and was run again with 10,000. Earlier versions of this page had other masks of the same networks.
"""


def page(rows: Rows, scaling: Rows, published: dict[str, dict[str, Any]], more: Sequence[str] = ()) -> str:
    """All tables, each with what was asked for beside what was reached; ``more`` are sections of other modules."""
    parts = (
        HEAD,
        _accuracies(rows),
        _targets(rows),
        _settings(rows),
        _rivals(rows),
        _wins(rows),
        _scaling(scaling),
        _published(published),
        *more,
    )
    return "\n".join((*parts, _end(rows, [*scaling, *published.values()])))


def table(heads: str, lines: Sequence[str]) -> str:
    """A table of Markdown; the first column is text."""
    columns = heads.split(" | ")
    ruler = "|---|" + "---:|" * (len(columns) - 1)
    return "\n".join([f"| {heads} |", ruler, *(f"| {line} |" for line in lines)]) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.2f} ± {pstdev(values):.2f}"


def _groups(rows: Rows) -> dict[tuple[str, str], Rows]:
    keys = dict.fromkeys((row["source"], row["net"]) for row in rows)
    return {key: [row for row in rows if (row["source"], row["net"]) == key] for key in keys}


def _label(row: dict[str, Any]) -> str:
    return f"{LABELS[row['source']]} {LABELS[row['net']]}"


def _accuracies(rows: Rows) -> str:
    keys = ("reference", "masked", "random", "critical", "tuned")

    def line(group: Rows) -> str:
        shares = spread([100 * row["share"] for row in group])
        cells = [
            _label(group[0]),
            ", ".join(str(row["seed"]) for row in group),
            shares,
            *(spread([row[key] for row in group]) for key in keys),
        ]
        return " | ".join(
            [*cells, f"{mean(row['seconds'] for row in group):.1f}", *(_range(group, key) for key in ("programs", "columns", "cuts"))]
        )

    heads = "network | seeds | pruned (%) | reference | masked | random | critical removed | fine-tuned"
    text = """## Accuracy on the test set

Accuracy in percent, mean and standard deviation over seeds. *Random* removes the same number of units per layer at random (mean of
five draws). *Critical removed* removes the same number of units per layer, those with the highest scores. *Fine-tuned* is the smaller
network after one more epoch of training. *Seconds* is the total time for the scores of the chosen setting. *Programs* is the number of
programs, *columns* the number of columns per program, and *rows* the largest number of rows added to a program. A stepwise mask is
computed with one program per step, which has only binary scores and is solved by the local search.
"""
    heads += " | seconds | programs | columns | rows"
    return f"{text}\n{table(heads, [line(group) for group in _groups(rows).values()])}"


def _range(group: Rows, key: str) -> str:
    low, high = (end(row[key] for row in group) for end in (min, max))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _targets(rows: Rows) -> str:
    lines = []
    for key, group in _groups(rows).items():
        if key in TARGETS:
            share, points = TARGETS[key]
            got, lost = mean(row["share"] for row in group), mean(row["reference"] - row["masked"] for row in group)
            verdicts = _missed(100 * (share - got), "% of parameters") + _missed(lost - points, "points")
            lines.append(f"{_label(group[0])} | {100 * share:.0f} % for {points} | {100 * got:.1f} % for {lost:.2f} | {_verdict(verdicts)}")
    return f"""## Without fine-tuning: asked for and reached

Share of parameters pruned, and accuracy lost on the test set in points, mean over seeds.

{table("network | asked for | reached | verdict", lines)}"""


def _missed(by: float, unit: str) -> list[str]:
    return [f"{by:.2f} {unit}"] if by > 0 else []


def _short(won: int, cases: int) -> list[str]:
    short = max(0, WINS - won)
    return [f"{short} cases"] if short and cases == OF else [f"{OF - cases} cases not run"] if short else []


def _verdict(missed: list[str]) -> str:
    return f"**missed** by {' and '.join(missed)}" if missed else "reached"


def _settings(rows: Rows) -> str:
    found: dict[str, list[tuple[bool, float, float]]] = {}
    for row in rows:
        for one in row["tried"]:
            won = one["setting"] == row["setting"]
            found.setdefault(one["setting"], []).append((won, 100 * one["share"], one["lost"]))
    lines = [
        f"{name} | {sum(won for won, _, _ in seen)} of {len(seen)} | {mean(s for _, s, _ in seen):.1f} | {mean(p for _, _, p in seen):.2f}"
        for name, seen in found.items()
    ]
    return f"""## Which settings were tried

How often each setting was chosen, and the share of parameters that it pruned and the accuracy that it lost on the validation images at
its best threshold, mean over the networks it was tried on. *Hard labels* is the weight of the true classes in the targets of the loss;
the remaining weight is on the class probabilities of the network.

{table("setting | chosen | pruned (%) | points lost", lines)}"""


def _contests(rows: Rows) -> Rows:
    return [row for row in rows if row["net"] in ("fc3", "lenet5")]


def _rivals(rows: Rows) -> str:
    def line(row: dict[str, Any]) -> str:
        others = (_beaten(row, name, lambda cell, won: cell if won else f"**{cell}**") for name in JUDGED_RIVALS)
        return " | ".join([f"{_label(row)}, seed {row['seed']}", f"{100 * row['share']:.1f}", f"{row['masked']:.2f}", *others])

    return f"""## Rivals at the same share of pruned parameters

Accuracy on the test set. Each rival uses the images of the mask, at most {MOST:,} of them. The table shows the better,
**on the test set**, of two rankings: the same number of units per layer as the mask, or the rival's own order over all layers.
Bold means better than the mask.

{table("network | pruned (%) | mask | " + " | ".join(JUDGED_RIVALS), [line(row) for row in rows])}"""


def _beaten(row: dict[str, Any], rival: str, show: Callable[[str, bool], str]) -> str:
    accuracy = row["rivals"][rival]["accuracy"]
    return show(f"{accuracy:.2f}", row["masked"] > accuracy)


def _wins(rows: Rows) -> str:
    cases = _contests(rows)
    wins = {name: sum(row["masked"] > row["rivals"][name]["accuracy"] for row in cases) for name in JUDGED_RIVALS}
    every = sum(all(row["masked"] > row["rivals"][name]["accuracy"] for name in JUDGED_RIVALS) for row in cases)
    lines = [f"{name} | {won} of {len(cases)} | {_verdict(_short(won, len(cases)))}" for name, won in wins.items()]
    lines.append(f"all of them at once | {every} of {len(cases)} | {_verdict(_short(every, len(cases)))}")
    return f"""Number of cases of FC-3 and LeNet-5 in which the mask is strictly better than the rival. The target is {WINS} of {OF}.

{table("rival | the mask is better | verdict", lines)}"""


def _scaling(rows: Rows) -> str:
    lines = [
        f"{row['images']:,} | {row['seconds']:.2f} | {row['peak'] / 2**30:.2f} | {row['rounds']} | {row['cuts']} | {row['status']}"
        for row in rows
    ]
    last = rows[-1]
    missed = _missed(last["seconds"] - FULL_MINUTE, "seconds") + _missed(last["peak"] / 2**30 - FULL_GIB, "GiB")
    return f"""## Time against images

LeNet-5 on Fashion-MNIST, seed 0, loss weight 5: time to build and solve one program, each in a new process. Peak memory is the largest
increase of its memory. The time grows with the power {slope(list(rows)):.2f} of the number of images. The target is {FULL_MINUTE:.0f}
seconds and {FULL_GIB:.0f} GiB with 1,000 images: {_verdict(missed)}.

{table("images | seconds | peak memory (GiB) | rounds | rows added | status", lines)}"""


def _published(both: dict[str, dict[str, Any]]) -> str:
    names = {"reduced": "reduced space", "full": "every variable written out", "conic": "the same through cvxpy and Clarabel"}
    lines = [
        f"{names[key]} | {row['rows']:,} | {row['columns']:,} | {row['build']:.2f} | {row['solve']:.2f} | {_number(row['objective'])}"
        f" | {_number(row['bound'])} | {row['status']}"
        for key in names
        if (row := both.get(key))
    ]
    seconds = {key: row["build"] + row["solve"] for key, row in both.items()}
    apart = abs(both["conic"]["objective"] - both["reduced"]["objective"])
    ratio = seconds["conic"] / seconds["reduced"]
    missed = [f"a factor of {FASTER / ratio:.1f}"] if ratio < FASTER else []
    missed += [f"{apart - CLOSE:.5f} in the objective"] if apart > CLOSE else []
    return f"""## The published constraints: reduced space, in full, and through cvxpy

FC-3 on Fashion-MNIST, seed 0, ten images, `pattern: paper`, `epsilon: {EPSILON:g}`, at most {LIMIT:.0f} seconds. The times are the
best of three alternated runs; cvxpy was run once. *Every variable written out* is mipnet's full program on HiGHS, without the
variables and rows that the bounds make unnecessary: it took {seconds["full"] / seconds["reduced"]:.2f} times as long as the program in
reduced space. *Through cvxpy* is the program with every row of the reference code, relaxed as in its run scripts, with Clarabel in
place of MOSEK: it took {ratio:.0f} times as long, and its objective differs by {apart:.5f}. The target is {FASTER:.0f} times as long
and a difference of at most {CLOSE:g}: {_verdict(missed)}.

{table("program | rows | columns | build (s) | solve (s) | objective | bound | status", lines)}"""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _end(rows: Rows, timed: Rows) -> str:
    made = ", ".join(sorted({f"`{row['commit']}` ({row['date']})" for row in rows}))
    times = ", ".join(sorted({f"`{row['commit']}`" for row in timed}))
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    return f"""## Where and when

Seeds {seeds}; only the runs in the tables were made. Scores and accuracies: commit {made}; times: commit {times}; a `+` means
that the library had uncommitted changes.
{where_measured()}
"""
