"""The measured part of docs/verification.md, between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from mipnet.app.runs.results_table import InstanceResult
from mipnet.app.runs.vnncomp_instances import VerifySettings
from mipnet.verification.verdict import STAGE_NAMES
from tests.bench.measure import ROOT
from tests.bench.registry import where_measured
from tests.bench.verification.judge import Key

PAGE = ROOT / "docs" / "verification.md"
BEGIN, END = "<!-- measured: written by `make bench-verification` -->", "<!-- measured: end -->"

ASKED = {"mnist_fc": 60, "mnist_fc 256x2": 29, "acasxu": 155}
"""How many should be decided."""

BEST = {"mnist_fc": "the best tool of VNN-COMP 2022 without a GPU decided 71 at the full time limits of 120 and 300 s"}

Answers = Sequence[InstanceResult]


def placed(page: str, text: str) -> str:
    """The page with the text between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{PAGE} has lost its marks; expected `{BEGIN}` and `{END}`")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def measured(answers: Answers, settings: VerifySettings, wanted: Mapping[Key, str], replayed: Mapping[Key, bool]) -> str:
    """One table a benchmark by stage, with times; then what was missed, and what was wrong."""
    names = dict.fromkeys(answer.benchmark for answer in answers)
    parts = [_benchmark(name, [a for a in answers if a.benchmark == name], settings, wanted, replayed) for name in names]
    return "\n".join((*parts, where_measured(("onnx", "onnxruntime")) + "\n"))


def _benchmark(name: str, answers: Answers, settings: VerifySettings, wanted: Mapping[Key, str], replayed: Mapping[Key, bool]) -> str:
    groups: dict[str, list[InstanceResult]] = {}
    for answer in answers:
        groups.setdefault(_group(answer), []).append(answer)
    rows = [*groups.items(), ("all", answers)]
    used = [stage for stage in STAGE_NAMES if any(answer.stage == stage for answer in answers)]
    heads = ["", "instances", "decided", "asked for", *used, "unsat", "sat", "median s", "total s"]
    limit = f"{settings.seconds:g} s per instance, solver {settings.backend}."
    return "\n".join(
        (
            f"### {name}",
            "",
            f"{limit} The stage columns count the instances that each stage decided. "
            "Seconds are wall-clock time and include reading the files.",
            "",
            "| " + " | ".join(heads) + " |",
            "|---|" + "---:|" * (len(heads) - 1),
            *(_row(name, label, group, used) for label, group in rows),
            "",
            _checked(answers, wanted, replayed),
            "",
            _missed(name, answers, wanted),
        )
    )


def _group(answer: InstanceResult) -> str:
    """The networks of mnist_fc by depth, the questions of acasxu by property."""
    return answer.network.rpartition("-net_")[2].removesuffix(".onnx") if answer.benchmark == "mnist_fc" else _short(answer.question)


def _short(file: str) -> str:
    return file.rpartition("/")[2].removesuffix(".vnnlib")


def _row(benchmark: str, label: str, group: Answers, used: Sequence[str]) -> str:
    decided = [answer for answer in group if answer.verdict in ("sat", "unsat")]
    stages = (sum(answer.stage == stage for answer in decided) for stage in used)
    words = (sum(answer.verdict == word for answer in group) for word in ("unsat", "sat"))
    seconds = [answer.seconds for answer in group]
    asked = ASKED.get(benchmark if label == "all" else f"{benchmark} {label}", "")
    times = (f"{median(seconds):.1f}", f"{sum(seconds):,.0f}")
    return "| " + " | ".join(map(str, (label, len(group), len(decided), asked, *stages, *words, *times))) + " |"


def _checked(answers: Answers, wanted: Mapping[Key, str], replayed: Mapping[Key, bool]) -> str:
    """How many answers contradict those of the competition, and how many counterexamples onnxruntime confirmed when run again."""
    known = [a for a in answers if a.verdict in ("sat", "unsat") and wanted.get(a.key) in ("sat", "unsat")]
    wrong = [a for a in known if wanted[a.key] != a.verdict]
    new = [a for a in answers if a.verdict in ("sat", "unsat") and wanted.get(a.key) == "unknown"]
    points = [replayed[a.key] for a in answers if a.verdict == "sat"]
    told = [f"{'**' + str(len(wrong)) + '**' if wrong else 'None'} of {len(known)} answers contradict those of VNN-COMP 2022."]
    told += [f"Wrong: {', '.join(map(_name, wrong))}."] if wrong else []
    told += [f"{len(new)} had no answer there: {', '.join(f'{_name(a)} ({a.verdict})' for a in new)}."] if new else []
    told += [f"A second run of onnxruntime on the files of all {len(points)} counterexamples confirms {sum(points)}."] if points else []
    return " ".join(told)


def _missed(benchmark: str, answers: Answers, wanted: Mapping[Key, str]) -> str:
    missed = [answer for answer in answers if answer.verdict not in ("sat", "unsat")]
    told = [f"{len(missed)} of {len(answers)} are not decided{'' if missed else '.'}"]
    if missed:
        told[0] += "; in brackets the answer of the competition and the bound reached: "
        told[0] += ", ".join(f"{_name(a)} ({wanted.get(a.key, 'unknown')}, {a.note or f'{a.bound:.3g}'})" for a in missed) + "."
    told += [f"For comparison: {BEST[benchmark]}."] if benchmark in BEST else []
    return " ".join(told) + "\n"


def _name(answer: InstanceResult) -> str:
    net = answer.network.rpartition("/")[2].removesuffix(".onnx")
    return f"{net.removeprefix('mnist-net_').removeprefix('ACASXU_run2a_').removesuffix('_batch_2000')} {_short(answer.question)}"
