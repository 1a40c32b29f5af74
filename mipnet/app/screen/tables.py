"""Tables and live progress, drawn with Rich from data alone; made for 80 columns, with colour for what needs a look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mipnet.app.runs.judge import DRAWS
from mipnet.app.runs.record import Run
from mipnet.backend import Feature, FoundBackend, Status

if TYPE_CHECKING:
    from mipnet.app.runs.bounds import Bounded
    from mipnet.app.runs.compare import Compared
    from mipnet.pruning.rivals.comparison import ComparisonTable as Contest
    from mipnet.verification.two_networks.masked_agreement import BallAgreements


def make_console(*, stderr: bool = False) -> Console:
    """A console that colours nothing by itself."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def number(value: float | None, digits: int = 6) -> str:
    """A number as tables show it; a dash for one that is infinite or unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A number of percent as tables show it."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f} %"


def gap_text(gap: float) -> str:
    """A relative gap in percent, with two digits that matter."""
    return "-" if not math.isfinite(gap) else f"{100 * gap:.2g} %"


def seconds(value: float) -> str:
    """A time in seconds, with hundredths where they matter."""
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def make_table(*columns: str, left: int = 1) -> Table:
    """A table without vertical lines; all columns but the first ``left`` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return table


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), Padding(body, (0, 0, 1, 2), expand=False))


def _pairs(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def run_report(run: Run) -> RenderableType:
    """All tables of a run, and its notes."""
    if run.path:
        return _path_report(run)
    parts = [_section("Solve", solve_table(run))]
    if run.parts:
        parts.append(_section(f"Programs, one a {run.spec.solve.decouple}", part_table(run)))
    parts.append(_section("What is left", layer_table(run)))
    if run.accuracy.reference is not None:
        parts.append(_section(f"Accuracy on {run.held:,} held-out images", accuracy_table(run)))
    if run.agreement is not None and run.agreement.balls:
        parts.append(_section(f"The same class within {run.agreement.radius:g} of held-out images?", agreement_table(run.agreement)))
    return Group(*parts, *(Text(f"note: {note}", style="yellow") for note in run.notes))


def _path_report(run: Run) -> RenderableType:
    held = run.accuracy.reference is not None
    title = f"Path along {run.along}" + (f", accuracy on {run.held:,} held-out images" if held else "")
    whole = [Text(f"The whole network gets {percent(run.accuracy.reference)} right.\n")] if held else []
    notes = (Text(f"note: {note}", style="yellow") for note in run.notes)
    return Group(_section("Solve", solve_table(run)), _section(title, path_table(run)), *whole, *notes)


def path_table(run: Run) -> Table:
    """What came of each point of a path."""
    table = make_table(run.along, "status", "objective", "bound", "gap", "time", "pruned", "right", left=2)
    for step in run.path:
        r = step.result
        status = Text(r.status.value) if r.verified or r.x is None else Text(f"{r.status.value}, NOT verified", style="bold red")
        told = (number(r.objective), number(r.bound), gap_text(r.gap), seconds(r.runtime))
        table.add_row(f"{step.value:.3g}", status, *told, percent(step.pruned), percent(step.accuracy))
    return table


def solve_table(run: Run) -> Table:
    """What the solver did, and whether the network agrees."""
    r = run.result
    rows: list[tuple[str, str | Text]] = [
        ("status", Text(r.status.value, style="green" if r.status is Status.OPTIMAL else "yellow")),
        *([] if run.path else [("objective", number(r.objective)), ("bound", number(r.bound)), ("gap", gap_text(r.gap))]),
        ("time", f"{seconds(r.runtime)} to solve, {seconds(run.build_seconds)} to build"),
        ("search", ", ".join((count_text(r.nodes, "node"), count_text(r.rounds, "round"), count_text(r.cuts, "cut")))),
        ("images", _images(run)),
        ("programs" if run.parts else "program", size_text(r.size)),
        *(("rewritten", text) for text in r.rewritten),
        ("backend", f"{r.backend} {r.version}"),
        ("verified", _verified(run)),
    ]
    return _pairs(rows)


def _images(run: Run) -> str:
    if not run.parts:
        return f"{run.samples:,} in the program"
    each = "each of " if all(part.samples == run.samples for part in run.parts) else ""
    return f"{run.samples:,} in {each}{count_text(len(run.parts), 'program')}"


def part_table(run: Run) -> Table:
    """What came of each program of a decoupled run."""
    table = make_table(run.spec.solve.decouple, "images", "status", "objective", "gap", "time", "verified", "")
    for part in run.parts:
        r = part.result
        told = (r.status.value, number(r.objective), gap_text(r.gap), seconds(r.runtime))
        verified = Text("yes") if r.verified else Text("NO", style="bold red")
        table.add_row(str(part.label), f"{part.samples:,}", *told, verified, "resumed" if part.label in run.resumed else "")
    return table


def count_text(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def size_text(size: Mapping[str, int]) -> str:
    """The size of a program in words; integers and special constraints only if there are any."""
    shown = [f"{size['rows']:,} rows", f"{size['columns']:,} columns", f"{size['nonzeros']:,} nonzeros"]
    return ", ".join(shown + [f"{size[key]:,} {name}" for key, name in (("integers", "integer"), ("special", "special")) if size.get(key)])


def _verified(run: Run) -> Text:
    if run.result.max_error is None:
        return Text("no point to replay", style="red")
    word, style = ("yes", "green") if run.result.verified else ("NO", "bold red")
    return Text.assemble((word, style), f", the network differs by at most {run.result.max_error:.1e}")


def layer_table(run: Run) -> Table:
    """Units and parameters of each layer, before and after."""
    table = make_table("layer", "units", "kept", "", "parameters", "kept", "")
    for c in run.layers:
        units = ("-", "-", "") if c.units is None or c.kept is None else (f"{c.units:,}", f"{c.kept:,}", percent(100 * c.kept / c.units, 0))
        table.add_row(c.name, *units, f"{c.before:,}", f"{c.after:,}", percent(100 * c.after / c.before, 0))
    gated = [c for c in run.layers if c.units is not None]
    units_all, kept = sum(c.units or 0 for c in gated), sum(c.kept or 0 for c in gated)
    table.add_section()
    total = (f"{units_all:,}", f"{kept:,}", percent(100 * kept / max(1, units_all), 0))
    table.add_row("all", *total, f"{run.before:,}", f"{run.after:,}", percent(100 - run.pruned, 0), style="bold")
    return table


def accuracy_table(run: Run) -> Table:
    """Accuracy of the whole network and of three smaller ones, with as many units gone in each layer."""
    table, a = make_table("network", "right", "change"), run.accuracy
    rows = [("whole", a.reference, False)]
    if a.masked is not None:
        threshold = run.spec.prune.value
        below = f"below {threshold:g}" if isinstance(threshold, float | int) else "that score lowest"
        rows += [
            (f"without the units {below}", a.masked, True),
            (f"without as many at random (mean of {DRAWS} draws)", a.random, False),
            ("without as many of the highest scores", a.critical, False),
        ]
    for name, value, strong in rows:
        change = "" if value is None or a.reference is None or value is a.reference else f"{value - a.reference:+.1f}"
        table.add_row(name, percent(value), change, style="bold" if strong else "")
    return table


def agreement_table(found: BallAgreements) -> Table:
    """Around each image: whether the network without the units names the same class everywhere."""
    table = make_table("image", "class", "all around", "by", "time", left=4)
    styles = {"proven": "green", "refuted": "bold red", "open": "yellow"}
    for ball in found.balls:
        where = "" if ball.classes is None else f": {ball.classes[0]} becomes {ball.classes[1]}"
        word = Text(ball.result + where, style=styles[ball.result])
        table.add_row(str(ball.index), str(ball.label), word, ball.method or "", seconds(ball.seconds))
    return table


def backends_table(found: Sequence[FoundBackend]) -> RenderableType:
    """Which backend can do what; those that cannot be used are listed with the reason."""
    usable = [f.backend for f in found if f.backend is not None and not f.problem]
    table = make_table("feature", *(f"{b.name} {b.version()}" for b in usable))
    for feature in Feature:
        table.add_row(feature.value, *("yes" if feature in b.features else "-" for b in usable))
    problems = [Text(f"{f.name}: {f.problem}", style="yellow") for f in found if f.problem]
    return Group(*([table] if usable else []), *problems)


def network_report(description: Mapping[str, Any]) -> RenderableType:
    """What `mipnet.app.runs.record.describe` found: the nodes, the gates, and the size of the program if there is one."""
    d = description
    head = f"Network: input {_shape(d['input_shape'])}, output {_shape(d['output_shape'])}, {d['parameters']:,} parameters"
    parts = [_section(head, _node_table(d["nodes"], program="program" in d)), _section("Gates", _gate_table(d["gates"]))]
    if "program" in d:
        p = d["program"]
        rows: list[tuple[str, str | Text]] = [
            ("size", size_text(p["size"])),
            ("images", f"{p['samples']:,}"),
            ("bounds", p["bounds"]),
            ("unstable", f"{sum(p['unstable'].values()):,} activations of either sign, over all images"),
        ]
        parts.append(_section("Program", _pairs(rows)))
    if "explanation" in d:
        parts.append(_section("How it is written", _written(d["explanation"])))
    return Group(*parts, *(Text(f"note: {note}", style="yellow") for note in d["notes"]))


def _written(explanation: Mapping[str, Any]) -> RenderableType:
    """What each node with something to decide became, why, and what the backend makes of it (`mipnet.model.explanation`)."""
    table = make_table("node", "formulation", "undecided", "variables", "binaries", "rows", "special", left=2)
    notes: list[Text] = []
    for each in [*explanation["nodes"], explanation["rest"]]:
        parts, size = each["phases"].values(), each["size"]
        open_ = f"{sum(part['undecided'] for part in parts):,}" if parts else ""
        if each["formulation"] or each["special"]:
            counts = (*(f"{size[key]:,}" for key in ("variables", "binaries", "rows")), f"{sum(each['special'].values()):,}")
            table.add_row(each["name"], each["formulation"], open_, *counts)
            told = [each["why"]] if each["formulation"] else []
            notes.append(Text(f"{each['name']}: {'; '.join([*told, *each['rewritten']])}"))
        notes += [Text(f"{each['name']}: {each['error']}", style="bold red")] if each["error"] else []
    size, handed = explanation["size"], explanation["handed_over"]
    if explanation["backend"] and handed and handed != size:
        words = ", ".join(f"{handed[key]:,} {key}" for key in ("variables", "binaries", "rows"))
        notes.append(Text(f"{explanation['backend']} gets {words}"))
    return Group(table, Text(), *notes)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _node_table(nodes: Sequence[Mapping[str, Any]], *, program: bool) -> Table:
    table = make_table("node", "layer", "reads", "shape", "parameters", *(["unstable"] if program else []), left=3)
    for node in nodes:
        unstable = [f"{node['unstable']:,}" if "unstable" in node else ""] if program else []
        parameters = f"{node['parameters']:,}" if node["parameters"] else ""
        table.add_row(node["name"], node["layer"], ", ".join(node["inputs"]), _shape(node["shape"]), parameters, *unstable)
    return table


def _gate_table(gates: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not gates:
        return Text("none: no layer can carry scores")
    table = make_table("layer", "acts behind", "scores", left=2)
    for gate in gates:
        table.add_row(gate["name"], ", ".join(gate["sites"]), f"{gate['units']:,}")
    return table


def comparison_report(done: Compared) -> RenderableType:
    """At each share the better ranking of every method, best first; then how often one's own is not beaten."""
    parts: list[RenderableType] = [Text(f"note: {note}", style="yellow") for note in done.notes]
    if (found := done.table) is None:
        return Group(*parts)
    title = f"Accuracy on {found.holdout:,} held-out images, {percent(found.reference, 2)} without masks"
    won = [f"{sum(found.beaten(t).values())} of {len(found.beaten(t))} at {percent(100 * t, 0)}" for t in found.targets]
    return Group(_section(title, _contest_table(found)), Text(f"Rivals that {found.name} equals or beats: {', '.join(won)}."), *parts)


def _contest_table(found: Contest) -> Table:
    table = make_table("share", "method", "ranking", "pruned", "accuracy", "spread", "lost", left=3)
    for target in found.targets:
        for place, row in enumerate(sorted((found.best(name, target) for name in found.methods), key=lambda row: -row.accuracy)):
            cells = (percent(100 * row.share), percent(row.accuracy, 2), f"{row.spread:.2f}" if row.spread else "")
            first = "" if place else percent(100 * target, 0)
            style = "bold" if row.rival == found.name else None
            table.add_row(first, row.rival, row.ranking, *cells, f"{found.reference - row.accuracy:.2f}", style=style)
        table.add_section()
    return table


def bounds_table(found: Bounded) -> Table:
    """A row for what each activation reads, and for the output."""
    layers = found.bounds.layers()
    table = make_table("layer", "units", "unstable", "mean width")
    for layer in layers:
        table.add_row(layer.name, f"{layer.units:,}", "-" if layer.unstable is None else f"{layer.unstable:,}", number(layer.width, 4))
    table.add_section()
    read = [layer for layer in layers if layer.unstable is not None]
    table.add_row("all", f"{sum(layer.units for layer in read):,}", f"{sum(layer.unstable or 0 for layer in read):,}", "", style="bold")
    return table
