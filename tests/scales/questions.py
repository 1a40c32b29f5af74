"""Random networks whose exact answers are known, put to the library, and how its answers compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import mipnet as mn
from tests.scales.distances import distortion
from tests.scales.exact import Exact
from tests.scales.importances import importance
from tests.scales.nets import Case
from tests.scales.programs import bounds, embedding, solve
from tests.scales.proofs import agree, classes, compress, margin, reach, verify
from tests.scales.setting import Label, Question, Setting

BACKENDS = "highs", "scip"

QUESTIONS: dict[str, Question] = {
    each.__name__: each for each in (bounds, solve, embedding, reach, verify, agree, classes, compress, margin, distortion, importance)
}


@dataclass(frozen=True)
class Answer:
    question: str
    backend: str
    label: Label
    detail: str


def rotation(seed: int, names: Sequence[str], count: int) -> tuple[list[str], tuple[str, ...]]:
    """Return the questions and the backends of a network's turn: ``count`` of the questions, and one or both of the backends."""
    turns = [names[(seed * count + k) % len(names)] for k in range(count)]
    return turns, (BACKENDS, BACKENDS[:1], BACKENDS[1:])[seed % 3]


def ask(case: Case, names: Sequence[str] = tuple(QUESTIONS), backends: Sequence[str] = BACKENDS) -> Iterator[Answer]:
    """Put questions to backends; an error of the library is an answer."""
    exact = Exact(case.network, case.lower, case.upper)
    for number, (name, question) in enumerate(QUESTIONS.items()):
        for backend in backends if name in names else ():
            try:
                for label, detail in question(Setting(case, exact, backend, np.random.default_rng([case.seed, 1, number]))):
                    yield Answer(name, backend, label, detail)
            except mn.MipnetError as error:
                yield Answer(name, backend, f"refused ({type(error).__name__})", str(error))
            except Exception as error:  # a traceback is a wrong answer, and must not end the run
                yield Answer(name, backend, "WRONG", f"traceback {error!r}")
