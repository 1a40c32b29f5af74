"""``make bench-importance``: every case, then docs/importance.md.  A second run reads what the first one kept.

``--quick`` does seed 0 alone and prints the page; ``--only NAME`` fills the files of cases whose name holds NAME (``sizes``: of the
tables of times; ``choice``, ``layers``, ``stability``, ``lucky``: of the tables of those names); ``--fresh`` reads no file; ``--kept``
writes the page from the files that there are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from types import ModuleType
from typing import Any

from tests.bench.importance import choice, layers_page, stability, transfer
from tests.bench.importance.judge import case_row, is_kept, kept, kept_row
from tests.bench.importance.page import PAGE, page
from tests.bench.importance.search import Case, Setting, Stepwise
from tests.bench.importance.sizes import published, scale, scaling
from tests.bench.importance.targets import BUDGETS
from tests.bench.trained import DATA, NETS

DENSE = (Setting(300, 1, 10.0), Stepwise(10000, 0.5), Stepwise(10000, 1.0))
CONV = (Setting(500, 1, 5.0), Stepwise(5000, 0.5, 0.7), Stepwise(5000, 1.0, 0.7))
FINER = (Setting(500, 1, 5.0), Stepwise(10000, 0.5, 0.7), Stepwise(10000, 1.0, 0.7))
"""For the case that comes too short with 5,000 images, on the images put aside."""


def settings(case: Case) -> tuple[Setting | Stepwise, ...]:
    """What is tried on a case."""
    return DENSE if case.net != "lenet5" else FINER if case.source == "mnist" else CONV


MORE = {"choice": choice, "layers": layers_page, "stability": stability, "lucky": transfer}


def main() -> None:
    """Run what the command line asks for."""
    given = arguments()
    if not os.environ.get("MIPNET_DATA"):
        sys.exit("MIPNET_DATA is not set; it names the folder of the MNIST and Fashion-MNIST files")
    if given.scale:
        print(json.dumps(scale(given.scale)))
        return
    cases = [Case(source, net, seed) for seed in range(1 if given.quick else 3) for source in DATA for net in NETS]
    wanted = [case for case in cases if given.only in case.name and not (given.kept and _kept(case) is None)]
    rows = [_row(case, given.fresh) for case in wanted]
    more = [_section(module, given) for name, module in MORE.items() if given.only in ("", name)]
    if given.only and given.only != "sizes":
        return
    sizes = kept("scaling", scaling, given.fresh), kept("published", published, given.fresh)
    if given.only:
        return
    text = page(rows, *sizes, [section for section in more if section])
    print(text) if given.quick else PAGE.write_text(text)


def arguments() -> argparse.Namespace:
    """What is given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.importance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seed 0 only, printed and not written")
    parser.add_argument("--fresh", action="store_true", help="solve everything again")
    parser.add_argument("--only", default="", metavar="NAME", help="fill the files of these cases, write no page")
    parser.add_argument("--kept", action="store_true", help="leave out what was not solved before")
    parser.add_argument("--scale", type=int, default=0, metavar="IMAGES", help=argparse.SUPPRESS)
    return parser.parse_args()


def _kept(case: Case) -> dict[str, Any] | None:
    return kept_row(case, settings(case), BUDGETS[case.source, case.net])


def _section(module: ModuleType, given: argparse.Namespace) -> str:
    """What a module measures, as its section of the page; empty if nothing was kept and nothing should be measured."""
    wanted = {name: job for name, job in module.jobs().items() if is_kept(name) or not (given.kept or given.quick)}
    rows = [kept(name, job, given.fresh) for name, job in wanted.items()]
    return module.section(rows) if rows else ""


def _row(case: Case, fresh: bool) -> dict[str, Any]:
    row = case_row(case, settings(case), BUDGETS[case.source, case.net], fresh)
    print(f"{case.name}: {100 * row['share']:.1f} % pruned, {row['reference'] - row['masked']:.2f} points lost", file=sys.stderr)
    return row


if __name__ == "__main__":
    main()
