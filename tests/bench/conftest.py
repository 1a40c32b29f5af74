from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.registry import PAGE, Row, Section, page


@pytest.fixture(scope="session")
def measured() -> Iterator[dict[Section, dict[str, Row]]]:
    """What the benchmarks of this session found; the sections that ran in full go into the page."""
    found: dict[Section, dict[str, Row]] = {}
    yield found
    full = {section: rows for section, rows in found.items() if len(rows) == len(section.benches)}
    if full:
        PAGE.write_text(page(PAGE.read_text() if PAGE.exists() else "", full))
