"""Answers held against those of the competition, and every counterexample run again by onnxruntime."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

import mipnet as mn
from mipnet.app.runs.results_table import InstanceResult

Key = tuple[str, str, str]


def reference(data: Path) -> dict[Key, str]:
    """What the tools of VNN-COMP agreed on, by benchmark, network and property: ``sat``, ``unsat`` or ``unknown``."""
    with (data / "verdicts.csv").open(encoding="utf-8") as stream:
        return {(line["benchmark"], line["onnx"], line["vnnlib"]): line["verdict"] for line in csv.DictReader(stream)}


def replayed(data: Path, folder: Path, answers: Sequence[InstanceResult]) -> dict[Key, bool]:
    """Whether the point in the file of each ``sat`` is a counterexample by onnxruntime, called here and not by mipnet."""
    return {answer.key: _replayed(data / answer.benchmark, folder / answer.point, answer) for answer in answers if answer.verdict == "sat"}


def _replayed(base: Path, point: Path, answer: InstanceResult) -> bool:
    text = point.read_text(encoding="utf-8")
    x, y = ([float(value) for value in re.findall(rf"\({letter}_\d+ ([^)]+)\)", text)] for letter in "XY")
    session = ort.InferenceSession(str(base / answer.network), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    array = np.array(x, np.float32).reshape([n if isinstance(n, int) and n > 0 else 1 for n in given.shape])
    found = np.asarray(session.run(None, {given.name: array})[0], np.float64).reshape(1, -1)
    inside = mn.read_vnnlib(base / answer.question).holds_at(array.reshape(1, -1).astype(np.float64), found, 1e-6)
    return bool(inside[0]) and bool(np.allclose(found[0], y, rtol=0, atol=1e-5 * max(1.0, np.abs(found).max())))
