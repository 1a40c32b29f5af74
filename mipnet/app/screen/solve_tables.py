"""What `mipnet solve` prints: the solve, what is left of each layer, and the accuracies."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mipnet.app.runs.evaluation import RANDOM_MASK_DRAWS
from mipnet.app.runs.importance_run import ImportanceRun
from mipnet.app.screen.tables import (
    count_text,
    gap_text,
    make_table,
    note_lines,
    number,
    pairs,
    percent,
    seconds,
    section,
    size_text,
    warning_lines,
)
from mipnet.backend import Status
from mipnet.solving.engine import Result
from mipnet.verification.two_networks.masked_agreement import BallAgreements

RESULT_STYLES = {"proven": "green", "refuted": "bold red", "open": "yellow"}


def importance_report(run: ImportanceRun) -> RenderableType:
    """Return all tables of a run, and its notes."""
    if run.path.points:
        return _path_report(run)
    evaluation = run.evaluation
    parts = [section("Solve", solve_table(run))]
    if run.decoupled.solved:
        parts.append(section(f"Programs, one per {run.file.solve.decouple}", part_table(run)))
    parts.append(section("What is left", layer_table(run)))
    if evaluation.accuracy.reference is not None:
        parts.append(section(f"Accuracy on {count_text(evaluation.images, 'held-out image')}", accuracy_table(run)))
    if evaluation.agreement is not None and evaluation.agreement.balls:
        title = f"The same class within {evaluation.agreement.radius:g} of held-out images?"
        parts.append(section(title, agreement_table(evaluation.agreement)))
    return Group(*parts, *note_lines(run.notes), *warning_lines(run.warnings))


def _path_report(run: ImportanceRun) -> RenderableType:
    reference = run.evaluation.accuracy.reference
    images = count_text(run.evaluation.images, "held-out image")
    title = f"Path along {run.path.parameter}" + ("" if reference is None else f", accuracy on {images}")
    whole = [] if reference is None else [Text(f"The whole network gets {percent(reference)} right.\n")]
    return Group(
        section("Solve", solve_table(run)), section(title, path_table(run)), *whole, *note_lines(run.notes), *warning_lines(run.warnings)
    )


def path_table(run: ImportanceRun) -> Table:
    """Return a table with one row per point of a path."""
    table = make_table(run.path.parameter, "status", "objective", "bound", "gap", "time", "pruned", "right", left=2)
    for point in run.path.points:
        r = point.result
        status = Text(r.status.value) if r.verified or r.x is None else Text(f"{r.status.value}, NOT verified", style="bold red")
        cells = (number(r.objective), number(r.bound), gap_text(r.gap), seconds(r.runtime))
        table.add_row(f"{point.value:.3g}", status, *cells, percent(point.pruned), percent(point.accuracy))
    return table


def solve_table(run: ImportanceRun) -> Table:
    """Return a table of the solve: status, objective, bound and gap, work, and whether the network confirms the solution."""
    r = run.result
    rows: list[tuple[str, str | Text]] = [
        ("status", Text(r.status.value, style="green" if r.status is Status.OPTIMAL else "yellow")),
        *([] if run.path.points else [("objective", number(r.objective)), ("bound", number(r.bound)), ("gap", gap_text(r.gap))]),
        ("time", f"{seconds(r.runtime)} to solve, {seconds(run.program.build_seconds)} to build"),
        ("search", ", ".join((count_text(r.nodes, "node"), count_text(r.rounds, "round"), count_text(r.cuts, "cut")))),
        ("images", _images(run)),
        ("programs" if run.decoupled.solved else "program", size_text(r.size)),
        *(("rewritten", text) for text in r.rewritten),
        ("backend", f"{r.backend} {r.version}"),
        ("verified", _verified(r)),
    ]
    return pairs(rows)


def _images(run: ImportanceRun) -> str:
    samples, parts = run.program.samples, run.decoupled.solved
    if not parts:
        return f"{samples:,} in the program"
    each = "each of " if all(part.samples == samples for part in parts) else ""
    return f"{samples:,} in {each}{count_text(len(parts), 'program')}"


def part_table(run: ImportanceRun) -> Table:
    """Return a table with one row per program of a decoupled run."""
    table = make_table(run.file.solve.decouple, "images", "status", "objective", "gap", "time", "verified", "")
    for part in run.decoupled.solved:
        r = part.result
        cells = (r.status.value, number(r.objective), gap_text(r.gap), seconds(r.runtime))
        verified = Text("yes") if r.verified else Text("NO", style="bold red")
        resumed = "resumed" if part.label in run.decoupled.resumed else ""
        table.add_row(str(part.label), f"{part.samples:,}", *cells, verified, resumed)
    return table


def _verified(result: Result) -> Text:
    if result.max_error is None:
        return Text("no point to replay", style="red")
    word, style = ("yes", "green") if result.verified else ("NO", "bold red")
    return Text.assemble((word, style), f", the network differs by at most {result.max_error:.1e}")


def layer_table(run: ImportanceRun) -> Table:
    """Return a table of the units and parameters of each layer, before and after pruning."""
    evaluation = run.evaluation
    table = make_table("layer", "units", "kept", "", "parameters", "kept", "")
    for c in evaluation.layers:
        units = ("-", "-", "") if c.units is None or c.kept is None else (f"{c.units:,}", f"{c.kept:,}", percent(100 * c.kept / c.units, 0))
        table.add_row(c.name, *units, f"{c.before:,}", f"{c.after:,}", percent(100 * c.after / c.before, 0))
    units_all, kept = (sum(getattr(c, key) or 0 for c in evaluation.layers if c.units is not None) for key in ("units", "kept"))
    table.add_section()
    total = (f"{units_all:,}", f"{kept:,}", percent(100 * kept / max(1, units_all), 0))
    table.add_row("all", *total, f"{evaluation.before:,}", f"{evaluation.after:,}", percent(100 - evaluation.pruned, 0), style="bold")
    return table


def accuracy_table(run: ImportanceRun) -> Table:
    """Return a table of the accuracies of the whole network and of three smaller ones with equally many units per layer."""
    table, a = make_table("network", "right", "change"), run.evaluation.accuracy
    rows = [("whole", a.reference, False)]
    if a.masked is not None:
        threshold = run.file.prune.value
        below = f"units below {threshold:g} removed" if isinstance(threshold, float | int) else "units that score lowest removed"
        rows += [
            (below, a.masked, True),
            (f"random units removed (mean of {RANDOM_MASK_DRAWS} draws)", a.random, False),
            ("critical units removed", a.critical, False),
        ]
    for name, value, strong in rows:
        change = "" if value is None or a.reference is None or value is a.reference else f"{value - a.reference:+.1f}"
        table.add_row(name, percent(value), change, style="bold" if strong else "")
    return table


def agreement_table(found: BallAgreements) -> Table:
    """Return a table with one row per image: whether the network without the pruned units names the same class around it."""
    table = make_table("image", "class", "all around", "by", "time", left=4)
    for ball in found.balls:
        change = "" if ball.classes is None else f": {ball.classes[0]} becomes {ball.classes[1]}"
        word = Text(ball.result + change, style=RESULT_STYLES[ball.result])
        table.add_row(str(ball.index), str(ball.label), word, ball.method or "", seconds(ball.seconds))
    return table
