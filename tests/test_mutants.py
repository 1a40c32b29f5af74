"""The lists of `make mutants` fit the source: modules and tests exist, and each fault that was written by hand has its place."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import PAGE, Score, listed, merged, planted, table
from tests.mutants.faults import all_faults
from tests.mutants.run import ROOT


@pytest.mark.parametrize("entry", listed("modules.yaml"), ids=lambda entry: entry["module"])
def test_a_module_its_tests_and_its_planted_faults_exist(entry: dict) -> None:
    source = (ROOT / entry["module"]).read_text(encoding="utf-8")
    assert all((ROOT / path.partition("::")[0]).exists() for path in entry["tests"])
    assert len(all_faults(source)) >= entry["faults"]
    for fault in planted(entry["module"], source):
        compile(fault.apply(source), entry["module"], "exec")


def test_every_planted_fault_is_of_a_listed_module() -> None:
    assert {each["module"] for each in listed("planted.yaml")} <= {each["module"] for each in listed("modules.yaml")}


def test_the_score_of_one_module_leaves_the_others() -> None:
    first, second, third = (each["module"] for each in listed("modules.yaml")[:3])
    old = [{"module": first, "faults": 9, "caught": 8, "harmless": 0}, {"module": third, "faults": 7, "caught": 5, "harmless": 2}]
    assert merged(old, [Score(second, 4, 3, 1), Score(first, 9, 9, 0)]) == [
        {"module": first, "faults": 9, "caught": 9, "harmless": 0},
        {"module": second, "faults": 4, "caught": 3, "harmless": 1},
        old[1],
    ]


def test_every_module_is_of_a_room_of_the_table() -> None:
    assert {each["room"] for each in listed("modules.yaml")} == {each["room"] for each in listed("rooms.yaml")}


def test_the_table_is_that_of_the_scores() -> None:
    assert table(listed("scores.yaml")) in PAGE.read_text(encoding="utf-8")
