"""Figures, drawn with matplotlib (``pip install mipnet[plots]``) and handed back as Figures; pyplot and its state take no part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mipnet.bounds.boxes import Bounds
from mipnet.errors import InputError
from mipnet.pruning.rivals.comparison import ComparisonRow, ComparisonTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, told apart by all eyes; black is for one's own method."""

MARKERS, DASHES = "s^DvPX*<>hd", ("-", "--", "-.", ":")
INSTALL = "matplotlib is not installed: pip install mipnet[plots]"
OWN = {"color": "black", "marker": "o", "linewidth": 2.6, "markersize": 6, "zorder": 5}


def curve(table: ComparisonTable, *, lowest: float | None = None) -> Figure:
    """Accuracy against the share of parameters pruned: a line a method, its better ranking at each share, best at the top of the legend.

    One's own method is thick and black; a band shows mean ± standard deviation of a rival that draws; the dashed line is the network
    without masks.  Colours are safe for colour-blind eyes, and markers tell the lines apart in grey.  ``lowest`` cuts the
    accuracies below it off.  Raises `InputError` if matplotlib is missing.
    """
    figure, axes = _axes(table.reference, table.holdout)
    looks = dict(zip([name for name in table.methods if name != table.name], _looks(), strict=False)) | {table.name: OWN}
    for name in sorted(table.methods, key=lambda name: -table.best(name, table.targets[-1]).accuracy):
        _line(axes, [table.best(name, target) for target in table.targets], looks[name], name)
    if lowest is not None:
        axes.set_ylim(bottom=lowest)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() == table.name else "normal")
    return figure


def _axes(reference: float, holdout: int) -> tuple[Figure, Any]:
    """An empty figure of accuracy against parameters pruned, with the network's own accuracy as a dashed line."""
    if find_spec("matplotlib") is None:
        raise InputError(INSTALL)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(reference, color="0.35", linestyle=(0, (6, 3)), linewidth=1, label="without masks")
    axes.set(xlabel="parameters pruned (%)", ylabel=f"accuracy on {holdout:,} images (%)")
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _looks() -> Iterator[dict[str, Any]]:
    """A look for each rival, so that no two of sixty are alike."""
    for colour, marker, dash in zip(cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False):
        yield {"color": colour, "marker": marker, "linestyle": dash, "linewidth": 1.2, "markersize": 4.5}


def _line(axes: Any, rows: list[ComparisonRow], look: dict[str, Any], name: str) -> None:
    shares, means, spreads = (np.array([getattr(row, key) for row in rows]) for key in ("share", "accuracy", "spread"))
    axes.plot(100 * shares, means, label=name, **look)
    if spreads.any():
        axes.fill_between(100 * shares, means - spreads, means + spreads, color=look["color"], alpha=0.15, linewidth=0)


def bounds_chart(*bounds: Bounds) -> Figure:
    """Layer by layer, for bounds of one network by several methods: the mean width (logarithmic), and how many units are unstable.

    Raises `InputError` if matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise InputError(INSTALL)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    widths, counts = figure.subplots(2, sharex=True)
    share = 0.8 / max(1, len(bounds))
    for k, (each, colour) in enumerate(zip(bounds, cycle(COLOURS), strict=False)):
        layers = each.layers()
        names = [layer.name for layer in layers]
        widths.plot(names, [layer.width for layer in layers], color=colour, marker=MARKERS[k % len(MARKERS)], label=each.method)
        unstable = [(i, layer.unstable) for i, layer in enumerate(layers) if layer.unstable is not None]
        places = [i + (k - (len(bounds) - 1) / 2) * share for i, _ in unstable]
        counts.bar(places, [count for _, count in unstable], share, color=colour)
    widths.set(yscale="log", ylabel="mean width")
    counts.set(ylabel="unstable units")
    counts.tick_params(axis="x", labelrotation=45 if bounds and len(bounds[0].layers()) > 8 else 0)
    for axes in (widths, counts):
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    widths.legend(frameon=False, fontsize="small")
    return figure


def path_curve(along: str, points: Sequence[tuple[float, float, float]], reference: float, holdout: int) -> Figure:
    """Accuracy against the share of parameters pruned along a path of ``(value, percent pruned, accuracy)``, each point with its value.

    The dashed line is the network without masks.  Raises `InputError` if matplotlib is missing.
    """
    figure, axes = _axes(reference, holdout)
    ordered = sorted(points, key=lambda point: point[1])
    axes.plot([pruned for _, pruned, _ in ordered], [right for _, _, right in ordered], **OWN)
    for value, pruned, right in ordered:
        axes.annotate(f"{value:.3g}", (pruned, right), xytext=(5, 5), textcoords="offset points", fontsize="small")
    axes.set_title(f"{along} beside each point", fontsize="small", loc="left")
    return figure


def save_path(along: str, points: Sequence[tuple[float, float, float]], reference: float, holdout: int, *paths: Path) -> None:
    """Write `path_curve` to files as `save_curve` does."""
    _save(partial(path_curve, along, points, reference, holdout), paths)


def save_curve(table: ComparisonTable, *paths: Path) -> None:
    """Write `curve` to files, each by its suffix, alike for equal tables; without matplotlib there is a warning and no file."""
    _save(partial(curve, table), paths)


def _save(draw: Callable[[], Figure], paths: Sequence[Path]) -> None:
    if find_spec("matplotlib") is None:
        warnings.warn(f"there is no curve: {INSTALL}", RuntimeWarning, stacklevel=3)
        return
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "mipnet", "svg.fonttype": "none"}):
        figure = draw()
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
