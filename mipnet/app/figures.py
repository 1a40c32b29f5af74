"""Figures, drawn with matplotlib (``pip install mipnet[plots]``) and returned as `Figure` objects, without pyplot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mipnet.bounds.boxes import Bounds
from mipnet.errors import InputError, suggest_keywords
from mipnet.pruning.rivals.comparison_table import ComparisonRow, ComparisonTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito, which is safe for colour-blind readers; black is for the scores that are compared with rivals."""

LINE_MARKERS, LINE_DASHES = "s^DvPX*<>hd", ("-", "--", "-.", ":")
MATPLOTLIB_MISSING = "matplotlib is not installed: pip install mipnet[plots]"
OWN_STYLE: dict[str, Any] = {"color": "black", "marker": "o", "linewidth": 2.6, "markersize": 6, "zorder": 5}


@suggest_keywords
def curve(table: ComparisonTable, *, lowest: float | None = None) -> Figure:
    """Draw accuracy against the share of parameters pruned: one line per method, by its better ranking at each share.

    The line of the compared scores, `table.name`, is thick and black.  A band shows mean ± standard deviation of a rival that draws
    random numbers.  The dashed line is the network without masks.  Markers distinguish the lines in grey.  The legend lists the best
    method first.  ``lowest`` is the smallest accuracy shown.  Raises `InputError` if matplotlib is missing.
    """
    figure, axes = _axes(table.reference, table.holdout)
    looks = dict(zip([name for name in table.methods if name != table.name], _looks(), strict=False)) | {table.name: OWN_STYLE}
    for name in sorted(table.methods, key=lambda name: -table.best(name, table.targets[-1]).accuracy):
        _line(axes, [table.best(name, target) for target in table.targets], looks[name], name)
    if lowest is not None:
        axes.set_ylim(bottom=lowest)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() == table.name else "normal")
    return figure


def _axes(reference: float, holdout: int) -> tuple[Figure, Any]:
    """Return an empty figure of accuracy against parameters pruned, with the network's own accuracy as a dashed line."""
    if find_spec("matplotlib") is None:
        raise InputError(MATPLOTLIB_MISSING)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(reference, color="0.35", linestyle=(0, (6, 3)), linewidth=1, label="without masks")
    axes.set(xlabel="parameters pruned (%)", ylabel=f"accuracy on {holdout:,} images (%)")
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _looks() -> Iterator[dict[str, Any]]:
    """Yield a different line style for each of up to sixty rivals."""
    for colour, marker, dash in zip(cycle(LINE_COLOURS), cycle(LINE_MARKERS), cycle(LINE_DASHES), strict=False):
        yield {"color": colour, "marker": marker, "linestyle": dash, "linewidth": 1.2, "markersize": 4.5}


def _line(axes: Any, rows: list[ComparisonRow], look: dict[str, Any], name: str) -> None:
    shares, means, spreads = (np.array([getattr(row, key) for row in rows]) for key in ("share", "accuracy", "spread"))
    axes.plot(100 * shares, means, label=name, **look)
    if spreads.any():
        axes.fill_between(100 * shares, means - spreads, means + spreads, color=look["color"], alpha=0.15, linewidth=0)


def bounds_chart(*bounds: Bounds) -> Figure:
    """Draw bounds of one network by several methods, per layer: the mean width (logarithmic) and the number of unstable units.

    Raises `InputError` if matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise InputError(MATPLOTLIB_MISSING)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    widths, counts = figure.subplots(2, sharex=True)
    share = 0.8 / max(1, len(bounds))
    for k, (each, colour) in enumerate(zip(bounds, cycle(LINE_COLOURS), strict=False)):
        layers = each.layers()
        names = [layer.name for layer in layers]
        widths.plot(names, [layer.width for layer in layers], color=colour, marker=LINE_MARKERS[k % len(LINE_MARKERS)], label=each.method)
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


class CurvePoint(NamedTuple):
    """A point of a path: the value of the parameter, percent of the parameters pruned, and percent right."""

    value: float
    pruned: float
    accuracy: float


def path_curve(parameter: str, points: Sequence[CurvePoint], reference: float, holdout: int) -> Figure:
    """Draw accuracy against the share of parameters pruned along a path, each point with its value of the parameter.

    The dashed line is the network without masks.  Raises `InputError` if matplotlib is missing.
    """
    figure, axes = _axes(reference, holdout)
    ordered = sorted(points, key=lambda point: point.pruned)
    axes.plot([point.pruned for point in ordered], [point.accuracy for point in ordered], **OWN_STYLE)
    for point in ordered:
        axes.annotate(f"{point.value:.3g}", (point.pruned, point.accuracy), xytext=(5, 5), textcoords="offset points", fontsize="small")
    axes.set_title(f"{parameter} beside each point", fontsize="small", loc="left")
    return figure


def save_path_curve(parameter: str, points: Sequence[CurvePoint], reference: float, holdout: int, path: Path) -> None:
    """Write `path_curve` to a file; without matplotlib there is a warning and no file."""
    _save(partial(path_curve, parameter, points, reference, holdout), [path])


def save_curve(table: ComparisonTable, *paths: Path) -> None:
    """Write `curve` to files, in the format of each suffix; equal tables give equal files.  Without matplotlib, only warn."""
    _save(partial(curve, table), paths)


def _save(draw: Callable[[], Figure], paths: Sequence[Path]) -> None:
    if find_spec("matplotlib") is None:
        warnings.warn(f"there is no curve: {MATPLOTLIB_MISSING}", RuntimeWarning, stacklevel=3)
        return
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "mipnet", "svg.fonttype": "none"}):
        figure = draw()
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
