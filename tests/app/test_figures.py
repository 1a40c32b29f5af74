"""The curve: every method once, the compared scores in front, in colours and marks that all can tell apart, and without pyplot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import mipnet as mn
from mipnet.app import figures as plots
from mipnet.app.figures import LINE_COLOURS, bounds_chart, curve, save_curve
from mipnet.errors import InputError
from mipnet.pruning.rivals.comparison_table import ComparisonRow, ComparisonTable
from tests.nets import make, mlp

RIVALS = [f"rival{k}" for k in range(15)]


@pytest.fixture
def table() -> ComparisonTable:
    """Own scores and fifteen rivals with two rankings at two shares; the first rival draws."""
    rows = [ComparisonRow("mip", "given", share, share + 0.01, 97 - 10 * share, 0.0, 1.0) for share in (0.2, 0.4)]
    for k, name in enumerate(RIVALS):
        for share in (0.2, 0.4):
            rows += [
                ComparisonRow(name, ranking, share, share + 0.02, 95 - k - 20 * share - less, 2.0 if k == 0 else 0.0, 0.1)
                for ranking, less in (("layers", 0), ("global", 3))
            ]
    return ComparisonTable(tuple(rows), "mip", 98.0, 0, 1000)


def lines(figure: Figure) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[0].get_lines()}


def test_every_method_has_one_line_at_its_better_ranking(table: ComparisonTable) -> None:
    drawn = lines(curve(table))
    assert list(drawn) == ["without masks", "mip", *RIVALS]
    assert list(drawn["mip"].get_xdata()) == pytest.approx([21, 41])
    assert list(drawn["rival3"].get_xdata()) == pytest.approx([22, 42])
    assert list(drawn["rival3"].get_ydata()) == pytest.approx([88, 84])
    assert list(drawn["without masks"].get_ydata()) == [98, 98]


def test_ones_own_is_in_front_and_rivals_differ_in_grey(table: ComparisonTable) -> None:
    drawn = lines(curve(table))
    own = drawn.pop("mip")
    drawn.pop("without masks")
    assert own.get_color() == "black"
    assert own.get_zorder() > max(line.get_zorder() for line in drawn.values())
    assert own.get_linewidth() > max(line.get_linewidth() for line in drawn.values())
    assert {line.get_color() for line in drawn.values()} == set(LINE_COLOURS)
    assert len({(line.get_marker(), line.get_linestyle()) for line in drawn.values()}) == len(RIVALS)


def test_the_band_is_that_of_the_rival_that_draws(table: ComparisonTable) -> None:
    (band,) = curve(table).axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((87 - 2, 91 + 2))


def test_the_axis_may_begin_higher(table: ComparisonTable) -> None:
    axes = curve(table, lowest=80).axes[0]
    assert axes.get_ylim()[0] == 80
    assert "1,000 images" in axes.get_ylabel()


@pytest.mark.sweep
def test_equal_tables_are_equal_files_and_pyplot_is_not_loaded(table: ComparisonTable, tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("one.svg", "two.svg", "one.png", "two.png")]
    save_curve(table, *names[::2])
    save_curve(table, *names[1::2])
    assert names[0].read_bytes() == names[1].read_bytes()
    assert names[2].read_bytes() == names[3].read_bytes()
    code = "import sys, mipnet.app.figures, mipnet.app.runs.compare; assert 'matplotlib' not in sys.modules\n"
    code += "from matplotlib.figure import Figure\nfrom mipnet.pruning.rivals.comparison import *\n"
    code += "mipnet.app.figures.curve(ComparisonTable((ComparisonRow('mip', 'given', .5, .5, 9, 0, 0),), 'mip', 9, 0, 9))"
    subprocess.run([sys.executable, "-c", f"{code}\nassert 'matplotlib.pyplot' not in sys.modules"], check=True, timeout=240)


def test_without_matplotlib_the_remedy_is_named(table: ComparisonTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install mipnet\[plots\]"):
        curve(table)


def test_bounds_are_drawn_layer_by_layer_for_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    network, g = make(mlp, 1)
    region = mn.LInf(g.uniform(0.2, 0.8, (2, *network.input_shape)), 0.2)
    found = [mn.propagate(network, region, method=method) for method in ("interval", "crown", "alpha")]
    widths, counts = bounds_chart(*found).axes
    assert [str(line.get_label()) for line in widths.get_lines()] == ["interval", "crown", "alpha"]
    for bounds, line in zip(found, widths.get_lines(), strict=True):
        assert list(line.get_ydata()) == pytest.approx([layer.width for layer in bounds.layers()])
    heights = [bar.get_height() for bar in counts.patches]
    assert heights == [layer.unstable for bounds in found for layer in bounds.layers()[:-1]]
    assert [label.get_text() for label in counts.get_xticklabels()] == ["act1", "act2", "fc3"]
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install mipnet\[plots\]"):
        bounds_chart(*found)
