"""`make mutants MODULE=mipnet/bounds/crown.py`: put single faults into a module, and report which ones the tests do not notice."""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.mutants.faults import Fault, sample
from tests.mutants.run import COLLECTION, ROOT, KnownTest, Outcome, baseline, try_fault

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
SEED = 0


@dataclass(frozen=True)
class Trial:
    """A fault, how the tests answered it, and the reason why it changes no result, if `survivors.yaml` states one."""

    fault: Fault
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Score:
    """The numbers of faults of one module."""

    module: str
    faults: int
    caught: int
    harmless: int

    @property
    def survived(self) -> int:
        return self.faults - self.caught - self.harmless


@cache
def listed(name: str) -> list[dict[str, Any]]:
    """Return the entries of one of the lists of this folder."""
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8")) or []


def planted(module: str, source: str) -> list[Fault]:
    """Return the faults of `planted.yaml` for a module; each replaces a text that occurs once."""
    found = []
    for each in listed("planted.yaml"):
        if each["module"] == module:
            if source.count(each["old"]) != 1:
                raise SystemExit(f"planted.yaml: {module} contains {each['old']!r} {source.count(each['old'])} times; expected once")
            begin = source.index(each["old"])
            found.append(Fault(begin, begin + len(each["old"]), each["old"], each["new"], each["fault"]))
    return found


def reason(module: str, source: str, fault: Fault) -> str:
    """Return why a surviving fault is harmless, by the line of the source and the replacement; empty if nothing says so."""
    line = source.splitlines()[source.count("\n", 0, fault.begin)].strip()
    for each in listed("survivors.yaml"):
        if (each["module"], each["line"], str(each["old"]), str(each["new"])) == (module, line, fault.old, fault.new):
            return str(each["reason"])
    return ""


def try_module(entry: dict[str, Any], given: argparse.Namespace, known: dict[str, KnownTest]) -> Score:
    """Try the faults of one module, print each, and return the numbers."""
    module, count = entry["module"], entry["faults"] if given.faults is None else given.faults
    source = (ROOT / module).read_text(encoding="utf-8")
    faults = [*planted(module, source), *sample(source, count, given.seed)]
    own = {name: each for name, each in known.items() if name == COLLECTION or name.startswith(tuple(entry["tests"]))}
    print(f"{module}: {len(faults)} faults, {len(own) - 1} tests", flush=True)

    def attempt(fault: Fault) -> Trial:
        return Trial(fault, try_fault(module, source, fault, own), reason(module, source, fault))

    trials = []
    with ThreadPoolExecutor(given.workers) as pool:
        for trial in pool.map(attempt, faults):
            trials.append(trial)
            word = "harmless" if trial.outcome.word == "survived" and trial.reason else trial.outcome.word
            text = trial.fault.describe(source) if "\n" not in trial.fault.old else trial.fault.kind
            print(f"  {word:9} {trial.outcome.seconds:5.1f} s  {text}  {trial.reason or trial.outcome.test}", flush=True)
    survived = [trial for trial in trials if trial.outcome.word == "survived"]
    harmless = sum(bool(trial.reason) for trial in survived)
    return Score(module, len(trials), len(trials) - len(survived), harmless)


def merged(old: list[dict[str, Any]], scores: list[Score]) -> list[dict[str, Any]]:
    """Return the entries of `scores.yaml` with those of the modules that were tried, in the order of `modules.yaml`."""
    found = {each["module"]: each for each in old}
    found |= {
        each.module: {"module": each.module, "faults": each.faults, "caught": each.caught, "harmless": each.harmless} for each in scores
    }
    return [found[each["module"]] for each in listed("modules.yaml") if each["module"] in found]


def table(entries: list[dict[str, Any]]) -> str:
    """Return the scores by room as a table."""
    rooms = {each["module"]: each["room"] for each in listed("modules.yaml")}
    lines = ["| room | caught at first | faults | caught | change no result | not caught |", "|---|---|---|---|---|---|"]
    for room in listed("rooms.yaml"):
        own = [Score(**each) for each in entries if rooms[each["module"]] == room["room"]]
        lines.append(f"| {room['room']} | {room['first']} | {_sums(own)} |")
    lines.append(f"| all | | {_sums([Score(**each) for each in entries])} |")
    return "\n".join(lines)


def _sums(scores: list[Score]) -> str:
    return " | ".join(str(sum(getattr(each, name) for each in scores)) for name in ("faults", "caught", "harmless", "survived"))


def write_page(scores: list[Score]) -> None:
    """Write the scores of these modules into `scores.yaml`, and those of all modules into docs/design.md."""
    entries = merged(listed("scores.yaml"), scores)
    lines = (yaml.safe_dump(each, default_flow_style=True, sort_keys=False, width=1000) for each in entries)
    (HERE / "scores.yaml").write_text(
        "# The scores of `make mutants ARGS=--page`.\n" + "".join(f"- {line}" for line in lines), encoding="utf-8"
    )
    text, found = PAGE.read_text(encoding="utf-8"), f"{BEGIN}\n\n{table(entries)}\n\n{END}"
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: found, text, flags=re.DOTALL), encoding="utf-8")


def main() -> int:
    """Run the faults of the modules that are named; exit status 1 if one survives without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths such as mipnet/bounds/crown.py, or parts of them; all modules if left out")
    parser.add_argument("--faults", type=int, help="number of faults per module, in place of that of modules.yaml")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the draw")
    parser.add_argument("--workers", type=int, default=1, help="faults that are tried at the same time")
    parser.add_argument("--page", action="store_true", help="write the scores of these modules into the table of docs/design.md")
    given = parser.parse_args()
    if given.page and (given.faults is not None or given.seed != SEED):
        parser.error("--page writes the scores of the faults of modules.yaml: leave --faults and --seed out")
    wanted = [each for each in listed("modules.yaml") if not given.modules or any(name in each["module"] for name in given.modules)]
    if not wanted:
        parser.error(f"no module of modules.yaml contains {' or '.join(given.modules)}")
    known = baseline([each["module"] for each in wanted], sorted({name for each in wanted for name in each["tests"]}))
    print(f"{len(known) - 1} tests, traced in {sum(each.seconds for each in known.values()):.0f} s", flush=True)
    scores = [try_module(each, given, known) for each in wanted]
    faults, survived = sum(each.faults for each in scores), sum(each.survived for each in scores)
    print(f"{faults} faults, {survived} survived without a reason")
    if given.page:
        write_page(scores)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
