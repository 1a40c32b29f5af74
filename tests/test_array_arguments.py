"""Functions of arrays, of rows and programs, and methods of sets and losses: wrong kinds and shapes are named in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet import arrays
from mipnet.app.figures import curve
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_network
from mipnet.arrays import Csr
from mipnet.backend import LogSumExp, Program, Rows, SemiContinuous, checks, relative_gap
from mipnet.bounds.interval import monotone
from mipnet.bounds.linear_rules import adjoint
from mipnet.errors import InputError
from mipnet.errors.expectations import expects
from mipnet.formulations.affine import Affine
from mipnet.pruning.importance.network_cuts import find_stages
from mipnet.pruning.rivals.parsimonious import learn
from mipnet.solving.open_problem import OpenProblem
from tests.test_arguments import BOX, INTERVAL, MODULE, NET, X, Y

ENDS = np.zeros(2)
ROWS = Rows(Csr(np.eye(2)), ENDS, ENDS + 1)
PROGRAM = Program(ENDS, ROWS, ENDS, ENDS + 1, np.zeros(2, dtype=bool))
BALL = mn.Ball(X[:1], 0.1, "l2")
POLYTOPE = mn.Polytope(np.ones((1, 4)), [1.0], lower=0.0, upper=1.0)
CASE = mn.Case(BOX, (mn.Clause(np.ones((1, 2)), np.zeros(1)),))
LOSS = mn.Loss("margin")
OUTPUT = np.zeros((6, 2))
ENCODING = mn.encode(NET, BOX)
AFFINE = Affine.fixed(np.zeros((1, 2)))
QUESTION = mn.Importance(NET, X, Y)
TENSOR = torch.zeros(1, 4)

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Rows": (Rows, {"matrix": ROWS.matrix, "lower": ENDS, "upper": ENDS}),
    "Program": (Program, {"cost": ENDS, "rows": ROWS, "lower": ENDS, "upper": ENDS, "integer": PROGRAM.integer}),
    "Rows.slack": (ROWS.slack, {"x": ENDS}),
    "Rows.violation": (ROWS.violation, {"x": ENDS}),
    "Rows.largest_terms": (ROWS.largest_terms, {"sizes": ENDS}),
    "Rows.without": (ROWS.without, {"negligible": 1e-9, "lower": ENDS, "upper": ENDS}),
    "Program.minimised": (PROGRAM.minimised, {"x": ENDS}),
    "Program.objective": (PROGRAM.objective, {"x": ENDS}),
    "Program.violation": (PROGRAM.violation, {"x": ENDS}),
    "Program.relative_violation": (PROGRAM.relative_violation, {"x": ENDS}),
    "Program.with_rows": (lambda rows: PROGRAM.with_rows(rows), {"rows": ROWS}),
    "LogSumExp.excess": (LogSumExp(np.array([[0, 1]]), np.array([1])).excess, {"x": ENDS}),
    "SemiContinuous.excess": (SemiContinuous(np.array([1]), ENDS[:1], ENDS[:1]).excess, {"x": ENDS}),
    "relative_gap": (relative_gap, {"objective": 1.0, "bound": 0.5}),
    "Limits.closed": (mn.Limits().closed, {"objective": 1.0, "bound": 0.5}),
    "check_program": (checks.check_program, {"backend": mn.get_backend("highs"), "program": PROGRAM}),
    "check_rows": (checks.check_rows, {"program": PROGRAM, "rows": ROWS}),
    "check_point": (checks.check_point, {"program": PROGRAM, "x": ENDS}),
    "clean_point": (checks.clean_point, {"program": PROGRAM, "x": ENDS}),
    "Box.nearest": (BOX.nearest, {"x": X}),
    "Box.inside": (BOX.inside, {"x": X}),
    "Box.meets_further": (POLYTOPE.meets_further, {"x": X, "tolerance": 0.0}),
    "Polytope": (mn.Polytope, {"matrix": np.eye(2), "rhs": np.ones(2), "lower": np.zeros(2), "upper": np.ones(2)}),
    "ConvexHull": (mn.ConvexHull, {"points": X, "enlarge": 0.1}),
    "counterfactual": (
        mn.counterfactual,
        {"network": NET, "x": X[0], "target": 0, "immutable": (), "integer": (), "one_hot": (), "norm": "l1", "backend": "highs"},
    ),
    "CounterfactualSettings": (
        lambda **given: mn.counterfactual(NET, X[0], 0, backend=mn.CounterfactualSettings(**{"within": mn.LInf(X[:1], 0.1), **given})),
        {"within": None, "weights": np.ones(4), "increasing": (), "decreasing": (), "count": 1, "apart": 0.5, "margin": 0.1},
    ),
    "activation_maximisation": (mn.activation_maximisation, {"network": NET, "unit": 0, "region": BOX}),
    "Box.reshape": (BOX.reshape, {"shape": (1, 2, 2)}),
    "Ball.nearest": (BALL.nearest, {"x": X}),
    "Ball.distance": (BALL.distance, {"x": X}),
    "Case.contains": (CASE.contains, {"x": X, "tolerance": 0.0}),
    "Case.excess": (CASE.excess, {"y": OUTPUT}),
    "Loss.values": (LOSS.values, {"logits": OUTPUT, "labels": Y}),
    "Loss.slopes": (LOSS.slopes, {"logits": OUTPUT, "labels": Y}),
    "Importance.read": (QUESTION.read, {"posed": ENCODING, "result": None}),
    "Encoding.value": (ENCODING.value, {"name": "fc1", "point": np.zeros(40)}),
    "Encoding.distance": (ENCODING.distance, {"centre": X[:1], "radius": 1.0, "norm": "l1"}),
    "Encoding.derive": (ENCODING.derive, {"labels": np.arange(2), "function": torch.abs}),
    "Affine.of": (Affine.of, {"labels": np.arange(2)}),
    "Affine.evaluate": (Affine.of(np.arange(2)).evaluate, {"point": ENDS}),
    "Affine.through": (lambda matrix: AFFINE.through(matrix, ENDS), {"matrix": Csr(np.eye(2))}),
    "activity": (arrays.activity, {"terms": ROWS.matrix, "lower": ENDS, "upper": ENDS}),
    "widen": (arrays.widen, {"terms": ROWS.matrix, "width": 3}),
    "monotone": (lambda layer, x: monotone(layer, x), {"layer": mn.ReLU(), "x": INTERVAL}),
    "adjoint": (
        lambda layer, coefficients, x: adjoint(layer, coefficients, x),
        {"layer": mn.ReLU(), "coefficients": TENSOR, "x": INTERVAL},
    ),
    "lines": (mn.lines, {"layer": mn.ReLU(), "x": INTERVAL, "choice": None}),
    "find_stages": (find_stages, {"network": NET, "gates": ()}),
    "OpenProblem": (OpenProblem, {"problem": ENCODING, "backend": mn.get_backend("highs")}),
    "learn": (learn, {"module": MODULE, "images": X, "labels": Y}),
    "accuracy": (mn.accuracy, {"network": NET, "images": X, "labels": Y}),
    "find_gates": (mn.find_gates, {"network": NET, "layers": "all"}),
    "prune_stepwise": (mn.prune_stepwise, {"network": NET, "images": X, "labels": Y, "shares": (0.1,)}),
    "EmbeddingSettings": (mn.EmbeddingSettings, {"envelope": False}),
    "load_spec": (load_spec, {"path": "no.yaml", "overrides": ()}),
    "read_network": (read_network, {"file": None}),
    "curve": (curve, {"table": None}),
    "Maximum": (mn.Maximum, {"places": [[0, 1]]}),
    "Gather": (mn.Gather, {"places": [0, 1], "fill": 0.0}),
    "SparseMap.of": (mn.SparseMap.of, {"matrix": Csr(np.eye(2)), "shift": torch.zeros(2)}),
    "Box": (mn.Box, {"lower": X, "upper": X + 1, "polytope": None}),
    "distinct": (arrays.distinct, {"numbers": np.arange(2)}),
    "Backend.tolerances": (mn.get_backend("highs").tolerances, {"options": None, "fine": False}),
    "RIVALS": (lambda name: mn.RIVALS[name], {"name": "random"}),
    "Network": (lambda name: NET[name], {"name": "fc1"}),
}
"""Functions with arguments that are right; one that is None stands for what no test here needs."""

ODD: dict[str, Any] = {
    "None": None,
    "a word": "typo",
    "a wrong shape": np.ones((3, 7)),
    "a class": mn.ReLU,
    "an object": object(),
    "a list": [1],
    "a mapping": {},
    "an input set": BOX,
    "an empty array": np.zeros(0),
}
NOWHERE = ("a word", "a class", "an object", "a mapping")
"""What fits no argument here, except for `TAKEN`."""

TAKEN = [
    ("Backend.tolerances", "options", "a mapping"),
    ("Encoding.derive", "function", "a class"),
    ("EmbeddingSettings", "envelope", "a word"),
    ("counterfactual", "one_hot", "a mapping"),
]


def refused(call: str, odd: str) -> None:
    function, right = CALLS[call]
    for name in right:
        try:
            function(**{**right, name: ODD[odd]})
            said = ""
        except mn.MipnetError as error:
            said = str(error)
        assert "\n" not in said
        assert len(said) < 400
        assert said or odd not in NOWHERE or (call, name, odd) in TAKEN


@pytest.mark.parametrize("call", CALLS)
def test_one_line_for_a_class_in_place_of_an_object(call: str) -> None:
    refused(call, "a class")


@pytest.mark.sweep
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("call", CALLS)
def test_one_line_for_every_wrong_kind(call: str, odd: str) -> None:
    refused(call, odd)


def test_the_message_names_the_arguments_that_were_given() -> None:
    with pytest.raises(InputError, match=r"`Rows.slack` was given a ndarray of shape \(3, 7\) as `x`; expected a number for each variable"):
        ROWS.slack(ODD["a wrong shape"])
    with pytest.raises(InputError, match=r"`relative_gap` was given 1.0 as `objective` and None as `bound`; expected two numbers"):
        relative_gap(1.0, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`lower` of the program is a ndarray of shape \(3,\); expected an array of shape \(2,\)"):
        Program(ENDS, ROWS, np.zeros(3), ENDS, PROGRAM.integer)
    with pytest.raises(InputError, match=r"the matrix of the rows is a ndarray of shape .*; expected a scipy.sparse.csr_array"):
        Rows(np.eye(2), ENDS, ENDS)  # type: ignore[arg-type]


def test_errors_of_mipnet_and_wrong_numbers_of_arguments_pass_unchanged() -> None:
    @expects("a number")
    def check(x: float) -> None:
        raise InputError("of its own") if x else KeyError("x")

    with pytest.raises(InputError, match="of its own"):
        check(1.0)
    with pytest.raises(InputError, match=r"was given 0.0 as `x`; expected a number"):
        check(0.0)
    with pytest.raises(TypeError, match="missing"):
        check()  # type: ignore[call-arg]


def test_an_unknown_rival_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no rival is called `tailor`; expected one of .*; did you mean `taylor`"):
        mn.RIVALS["tailor"]
    assert "tailor" not in mn.RIVALS
    assert mn.RIVALS.get("tailor") is None
    assert mn.RIVALS.get("taylor") is mn.RIVALS["taylor"]


def test_a_name_is_in_a_network_or_not() -> None:
    assert "fc1" in NET
    assert "0" not in NET
    assert 0 not in NET
