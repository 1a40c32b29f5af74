"""``make bench-verification``: `mnist_fc` and `acasxu` of VNN-COMP, then the tables of docs/verification.md.

A second run goes on where the first one ended.  ``--only NAME`` runs one benchmark, ``--take N`` the first N instances of each,
``--kept`` runs nothing; a page is written only from all instances, else it is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mipnet.app.runs.results_table import InstanceResult, open_table
from mipnet.app.runs.vnncomp_instances import Instance, VerifySettings, read_instances, run_instances
from mipnet.app.screen.progress import StageProgress
from mipnet.app.screen.tables import make_console
from tests.bench.measure import ROOT
from tests.bench.verification.judge import reference, replayed
from tests.bench.verification.page import PAGE, measured, placed

BENCHMARKS = ("mnist_fc", "acasxu")
FOLDER = ROOT / "runs" / "bench-verification"


def main() -> None:
    """Run what the command line asks for."""
    given = arguments()
    data = Path(os.environ.get("MIPNET_DATA") or sys.exit("MIPNET_DATA is not set; it names the folder with `vnncomp` in it")) / "vnncomp"
    wanted = {name: read_instances(data / name / "instances.csv") for name in BENCHMARKS}
    taken = [one for name, lines in wanted.items() if given.only in ("", name) for one in lines[: given.take]]
    settings = VerifySettings(given.backend, seconds=given.timeout)
    answers = _kept(taken, given.output) if given.kept else _run(taken, given, settings)
    text = measured(answers, settings, reference(data), replayed(data, given.output, answers))
    if len(answers) < sum(map(len, wanted.values())):
        print(text)
    else:
        PAGE.write_text(placed(PAGE.read_text(), text))


def arguments() -> argparse.Namespace:
    """What is given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.verification", description=__doc__)
    parser.add_argument("--only", default="", choices=BENCHMARKS, help="one benchmark, printed and not written")
    parser.add_argument("--take", type=int, default=None, metavar="N", help="the first N instances of each, printed and not written")
    parser.add_argument("--kept", action="store_true", help="run nothing, and tell of what was kept")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--backend", default="highs")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes side by side")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR")
    return parser.parse_args()


def _run(taken: list[Instance], given: argparse.Namespace, settings: VerifySettings) -> list[InstanceResult]:
    with StageProgress(make_console(stderr=True), quiet_stages=True) as told:
        return run_instances(
            taken,
            given.output,
            settings,
            workers=given.workers,
            on_begin=told.instances_begin,
            on_done=told.instance_done,
            on_stage=told.stage,
        )


def _kept(taken: list[Instance], folder: Path) -> list[InstanceResult]:
    """The last answers that there are, whatever the settings were."""
    known = {answer.key: answer for answer in open_table(folder)}
    return [known[key] for one in taken if (key := (one.benchmark, one.network, one.question)) in known]


if __name__ == "__main__":
    main()
