"""Write the section *Layout* of docs/design.md from the import contracts of pyproject.toml and the docstrings: ``make layout``."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- begin: written by make layout -->\n", "<!-- end: written by make layout -->\n"


def contracts() -> dict[str, dict[str, list[str]]]:
    """The import contracts of pyproject.toml by id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {each["id"]: each for each in settings["tool"]["importlinter"]["contracts"]}


def names_in(layer: str) -> list[str]:
    return re.split(r"\s*[|:]\s*", layer)


def summary(path: Path) -> str:
    """The first sentence of a module's or a package's docstring."""
    file = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.])\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    return sentence.replace("``", "`").rstrip(".:")


def modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules of a room, those of its sub-rooms after its own, by path inside the room."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield path.name, path
    for below in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        yield f"{below.name}/", below
        for name, path in modules(below):
            yield f"{below.name}/{name}", path


def layout() -> str:
    """The page's section: the order of imports, then every room with its modules."""
    layers = [names_in(layer) for layer in contracts()["direction"]["layers"]]
    app = " > ".join(", ".join(names_in(layer)) for layer in contracts()["app"]["layers"])
    lines = ["A room may import the rooms below it. Rooms on one line do not import one another.", "", "```text"]
    lines += [" | ".join(row) for row in layers] + ["```", "", f"Inside `app`, from the top: {app}.", ""]
    for row in layers:
        for name in row:
            folder = ROOT / "mipnet" / name
            if not folder.is_dir():
                continue
            lines += [f"### `mipnet/{name}/`", "", f"{summary(folder)}.", "", "| module | |", "|---|---|"]
            lines += [f"| `{inside}` | {summary(path)} |" for inside, path in modules(folder)] + [""]
    beside = [path for path in sorted((ROOT / "mipnet").glob("*.py"))]
    lines += ["### Beside the rooms", "", "| module | |", "|---|---|", *(f"| `mipnet/{path.name}` | {summary(path)} |" for path in beside)]
    backends = sorted(path for path in (ROOT / "backends").iterdir() if (path / "__init__.py").is_file())
    lines += ["", "### `backends/`", "", "| package | |", "|---|---|", *(f"| `{path.name}` | {summary(path)} |" for path in backends)]
    return "\n".join(lines) + "\n"


def with_layout(page: str) -> str:
    """The page with the section as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + layout() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_layout(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
