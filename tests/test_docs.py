"""What the documentation shows is true: its Python runs, its YAML loads, its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import mipnet
import mipnet.backend
import mipnet.testing
from mipnet.app.files.base import load_as
from mipnet.app.tasks import find_task
from tests.layout import with_layout

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "backends/README.md", "examples/README.md"))]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documentation is part of a checkout")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language; those that include a file of examples/ are tests/test_examples.py's."""
    found = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith("--8<--")]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": page.stem}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{name_of(page)}, block {number}", "exec", dont_inherit=True), space)


def test_formulations_shows_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "formulations.md").read_text()
    ((block, shown),) = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/formulations.md", "exec"), {})
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(p, b, id=name_of(p)) for p in PAGES for b in blocks(p, "yaml") if b.startswith("mipnet: 1")]
)
def test_yaml_loads(page: Path, block: str, tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(block)
    task = re.search(r"^task: (\w+)", block, flags=re.MULTILINE)
    assert task is not None
    loaded = load_as(find_task(task[1]).file_class(), file)
    assert loaded.mipnet == 1


def anchors(path: Path) -> set[str]:
    """The anchors that headings get: lower case, without punctuation, blanks as hyphens."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title.strip().lower())) for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file) if file else page
        assert there.exists(), f"{name_of(page)} links to {target}"
        if page.parent.name == "docs":
            assert there.parent == page.parent, f"{name_of(page)} links to {target}, which is no page of the site"
        assert not anchor or anchor in anchors(there), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for file in re.findall(r"`((?:mipnet|backends|examples|tests|docs)/[\w/.]+)`", text):
        assert (ROOT / file).exists(), f"{name_of(page)} names {file}"


def documented() -> list[str]:
    return re.findall(r"^::: (mipnet[\w.]*)", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_reference_is_the_public_interface() -> None:
    """Every public name is there, once, and every name that is there exists."""
    names = documented()
    assert len(names) == len(set(names))
    for name in names:
        assert pkgutil.resolve_name(name) is not None, name
    public = {f"mipnet.{name}" for name in (set(mipnet.__all__) - set(backend_names()) - {"MipnetError"})}
    public |= {f"mipnet.backend.{name}" for name in backend_names()} | {f"mipnet.testing.{name}" for name in mipnet.testing.__all__}
    assert public <= set(names), sorted(public - set(names))


def imported() -> list[str]:
    """The names that pages, checklists and examples import from modules of mipnet."""
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    scripts += [block for page in PAGES for block in blocks(page, "python")]
    found = [node for script in scripts for node in ast.walk(ast.parse(script)) if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}.{each.name}" for node in found if (node.module or "").startswith("mipnet") for each in node.names]


def test_what_pages_and_examples_import_is_in_the_reference() -> None:
    """A name is there itself, or its module is."""
    names = set(documented())
    used = set(imported())
    assert used
    missing = {name for name in used if name not in names and name.rpartition(".")[0] not in names and not _holds(name, names)}
    assert not missing


def _holds(module: str, names: set[str]) -> bool:
    """True for a module some of whose names are documented, as in ``from mipnet.readers import data``."""
    return any(name.startswith(f"{module}.") for name in names)


def backend_names() -> list[str]:
    """The names of the contract of a plug-in."""
    return [name for name, value in vars(mipnet.backend).items() if not name.startswith("_") and not inspect.ismodule(value)]


def test_the_layout_is_that_of_the_contracts_and_docstrings() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert page == with_layout(page), "run `make layout`"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^  - .+: (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert listed == {p.name for p in (ROOT / "docs").glob("*.md")}


def test_every_included_file_exists() -> None:
    included = [file for page in PAGES for file in re.findall(r'^--8<-- "(.+)"$', page.read_text(), flags=re.MULTILINE)]
    assert included
    assert all((ROOT / file).is_file() for file in included)
