"""Put questions to random networks, and print how many answers are right: ``python -m tests.scales 0 2000 [question ...]``."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter

from tests.scales.exact import TooManyRegions
from tests.scales.nets import draw
from tests.scales.questions import QUESTIONS, ask


def main(first: int, end: int, names: list[str]) -> None:
    """Print every answer that is not right, and a table of counts."""
    warnings.simplefilter("ignore")
    counts: Counter[tuple[str, str, str]] = Counter()
    left_out, began = 0, time.process_time()
    for seed in range(first, end):
        case = draw(seed)
        units = " ".join(f"{unit:.0e}" for unit in case.units)
        try:
            for answer in ask(case, names or list(QUESTIONS)):
                counts[answer.question, answer.backend, answer.label] += 1
                if answer.label != "right":
                    about = f"seed {seed} {case.family} [{units}] {answer.question} {answer.backend}"
                    print(f"{answer.label}: {about}: {answer.detail}", flush=True)
        except TooManyRegions:
            left_out += 1
    labels = sorted({label for *_, label in counts})
    print(f"\n{end - first} networks, {left_out} left out, {time.process_time() - began:.0f} s")
    print("| question | solver | " + " | ".join(labels) + " |")
    print("|---" * (2 + len(labels)) + "|")
    for question, backend in sorted({(q, b) for q, b, _ in counts}):
        print(f"| {question} | {backend} | " + " | ".join(str(counts[question, backend, label]) for label in labels) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
