"""Put questions to random networks, and print how many answers are right: ``python -m tests.scales 0 2000 --each 3 [question ...]``."""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter

from tests.scales.exact import TooManyRegions
from tests.scales.nets import draw
from tests.scales.questions import BACKENDS, QUESTIONS, ask, rotation

NETWORKS_PER_REPORT = 100


def main(first: int, end: int, names: list[str], each: int | None) -> None:
    """Print every answer that is not right, and a table of counts every hundred networks.

    With ``each``, a network is asked only that number of the questions, by one or both solvers, which take turns.
    """
    warnings.simplefilter("ignore")
    counts: Counter[tuple[str, str, str]] = Counter()
    left_out, began = 0, time.process_time()
    for seed in range(first, end):
        case = draw(seed)
        units = " ".join(f"{unit:.0e}" for unit in case.units)
        turns, backends = (names, BACKENDS) if each is None else rotation(seed, names, each)
        try:
            for answer in ask(case, turns, backends):
                counts[answer.question, answer.backend, answer.label] += 1
                if answer.label != "right":
                    about = f"seed {seed} {case.family} [{units}] {answer.question} {answer.backend}"
                    print(f"{answer.label}: {about}: {answer.detail}", flush=True)
        except TooManyRegions:
            left_out += 1
        if seed + 1 == end or (seed + 1) % NETWORKS_PER_REPORT == 0:
            print(f"\n{seed + 1 - first} networks, {left_out} left out, {time.process_time() - began:.0f} s")
            report(counts)


def report(counts: Counter[tuple[str, str, str]]) -> None:
    labels = sorted({label for *_, label in counts})
    print("| question | solver | " + " | ".join(labels) + " |")
    print("|---" * (2 + len(labels)) + "|")
    for question, backend in sorted({(q, b) for q, b, _ in counts}):
        print(f"| {question} | {backend} | " + " | ".join(str(counts[question, backend, label]) for label in labels) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.scales")
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("questions", nargs="*", default=list(QUESTIONS))
    parser.add_argument("--each", type=int)
    given = parser.parse_args()
    main(given.first, given.end, given.questions, given.each)
