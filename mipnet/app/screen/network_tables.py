"""What `mipnet inspect`, `mipnet bounds` and `mipnet backends` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mipnet.app.runs.bounds import BoundsRun
from mipnet.app.screen.tables import count_text, make_table, note_lines, number, pairs, section, size_text
from mipnet.backend import Feature, FoundBackend
from mipnet.readers.operators.table import OperatorRow


def network_report(description: Mapping[str, Any]) -> RenderableType:
    """Return the tables of a network from `mipnet.app.runs.network_description`: nodes, gates, and the program if there is one."""
    d = description
    head = f"Network: input {_shape(d['input_shape'])}, output {_shape(d['output_shape'])}, {count_text(d['parameters'], 'parameter')}"
    parts = [section(head, _node_table(d["nodes"], program="program" in d)), section("Gates", _gate_table(d["gates"]))]
    if "program" in d:
        p = d["program"]
        rows: list[tuple[str, str | Text]] = [
            ("size", size_text(p["size"])),
            ("images", f"{p['samples']:,}"),
            ("bounds", p["bounds"]),
            ("unstable", f"{count_text(sum(p['unstable'].values()), 'activation')} of either sign, over all images"),
        ]
        parts.append(section("Program", pairs(rows)))
    if "explanation" in d:
        parts.append(section("How it is written", _written(d["explanation"])))
    return Group(*parts, *note_lines(d["notes"]))


def operator_table(rows: Sequence[OperatorRow]) -> RenderableType:
    """Return a table of the operators that are read."""
    table = make_table("torch", "ONNX", "layers", left=3)
    for row in rows:
        table.add_row(row.torch, row.onnx, row.layers)
    return table


def _written(explanation: Mapping[str, Any]) -> RenderableType:
    """Return a table with the formulation of each node and its size; below it why it was chosen, and how the backend rewrites it."""
    table = make_table("node", "formulation", "unstable", "variables", "binaries", "rows", "nonlinear", left=2)
    notes: list[Text] = []
    for each in [*explanation["nodes"], explanation["rest"]]:
        parts, size = each["phases"].values(), each["size"]
        open_ = f"{sum(part['undecided'] for part in parts):,}" if parts else ""
        if each["formulation"] or each["special"]:
            counts = (*(f"{size[key]:,}" for key in ("variables", "binaries", "rows")), f"{sum(each['special'].values()):,}")
            table.add_row(each["name"], each["formulation"], open_, *counts)
            reasons = [each["why"]] if each["formulation"] else []
            notes.append(Text(f"{each['name']}: {'; '.join([*reasons, *each['rewritten']])}"))
        notes += [Text(f"{each['name']}: {each['error']}", style="bold red")] if each["error"] else []
    size, handed = explanation["size"], explanation["handed_over"]
    if explanation["backend"] and handed and handed != size:
        kinds = {"variables": "variable", "binaries": "binary", "rows": "row"}
        words = ", ".join(count_text(handed[key], word, key) for key, word in kinds.items())
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
        return Text("none: no layer can have scores")
    table = make_table("layer", "acts after", "scores", left=2)
    for gate in gates:
        table.add_row(gate["name"], ", ".join(gate["sites"]), f"{gate['units']:,}")
    return table


def bounds_table(found: BoundsRun) -> Table:
    """Return a table with one row for the input of each activation, and one for the output."""
    layers = found.bounds.layers()
    table = make_table("layer", "units", "unstable", "mean width")
    for layer in layers:
        table.add_row(layer.name, f"{layer.units:,}", "-" if layer.unstable is None else f"{layer.unstable:,}", number(layer.width, 4))
    table.add_section()
    read = [layer for layer in layers if layer.unstable is not None]
    table.add_row("all", f"{sum(layer.units for layer in read):,}", f"{sum(layer.unstable or 0 for layer in read):,}", "", style="bold")
    return table


def backends_table(found: Sequence[FoundBackend]) -> RenderableType:
    """Return a table of the features of each backend; backends that cannot be used are listed with the reason."""
    usable = [f.backend for f in found if f.backend is not None and not f.problem]
    table = make_table("feature", *(f"{b.name} {b.version()}" for b in usable))
    for feature in Feature:
        table.add_row(feature.value, *("yes" if feature in b.features else "-" for b in usable))
    problems = [Text(f"{f.name}: {f.problem}", style="yellow") for f in found if f.problem]
    return Group(*([table] if usable else []), *problems)
