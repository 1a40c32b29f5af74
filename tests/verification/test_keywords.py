"""Misspelt keywords of the public functions for bounds and verification, and settings that travel with the backend."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.errors import ArgumentError, BackendMissing, InputError

NETWORK = mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2, dtype=torch.float64), torch.zeros(2)))])
REGION = mn.LInf(np.zeros((1, 2)), 0.1)
ROWS = mn.Clause(np.array([[1.0, 0.0]]), np.array([-1.0]))
QUESTION = mn.Property((mn.Case(REGION, (ROWS,)),))

CALLS = {
    "verify": ((NETWORK, QUESTION), "time_limit"),
    "reach": ((NETWORK, REGION), "tolerance"),
    "agree": ((NETWORK, NETWORK, REGION), "within"),
    "agree_on_class": ((NETWORK, NETWORK, REGION), "margin"),
    "compress": ((NETWORK, REGION), "time_limit"),
    "robustness": ((NETWORK, [0.0, 0.0]), "radius"),
    "robustness_property": ((NETWORK, [0.0, 0.0]), "radius"),
    "minimum_distortion": ((NETWORK, [0.0, 0.0]), "upper"),
    "maximum_margin": ((NETWORK, REGION, 0), "time_limit"),
    "propagate": ((NETWORK, REGION), "method"),
    "tighten": ((NETWORK, REGION), "time_limit"),
    "load_bounds": (("bounds.npz", NETWORK, REGION), "gates"),
    "property_of": ((lambda x, y: y[0] <= 0, REGION), "outputs"),
    "MipSettings": ((), "formulation"),
    "DistortionSettings": ((), "seed"),
    "TighteningRun": ((), "workers"),
    "UserBounds": (({},), "replace"),
    "Classes": ((), "targets"),
    "Oracle": (("torch", NETWORK.forward), "dtype"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_keyword_names_the_function_and_the_closest_argument(name):
    given, keyword = CALLS[name]
    misspelt = keyword[:-2] + keyword[-1]  # time_limit becomes time_limt
    with pytest.raises(ArgumentError, match=f"`{name}` has no argument `{misspelt}`; did you mean `{keyword}`"):
        getattr(mn, name)(*given, **{misspelt: 3})


@pytest.mark.parametrize("name", CALLS)
def test_a_function_takes_at_most_eight_arguments(name):
    assert len(inspect.signature(getattr(mn, name)).parameters) <= 8


@pytest.mark.parametrize("backend", ["highs", mn.MipSettings("highs", {"presolve": "off"}), mn.MipSettings(formulation={"relu": "sos1"})])
def test_settings_stand_wherever_a_backend_is_named(backend):
    assert mn.verify(NETWORK, QUESTION, backend=backend).status == "unsat"
    assert mn.reach(NETWORK, REGION, backend=backend).closed
    assert mn.minimum_distortion(NETWORK, [0.3, 0.1], upper=0.5, backend=backend).lower == pytest.approx(0.1, abs=1e-3)
    assert mn.maximum_margin(NETWORK, REGION, 0, backend=backend).upper == pytest.approx(0.2, abs=1e-3)
    assert mn.tighten(NETWORK, REGION, backend=backend).width()["fc"] == pytest.approx(0.2, abs=1e-6)


def test_settings_of_one_kind_become_those_of_another():
    plain = mn.MipSettings("scip", {"limits/nodes": 5})
    wider = mn.DistortionSettings.of(plain)
    assert (wider.solver.name, wider.options, wider.gap, wider.seed) == ("scip", plain.options, 1e-3, 0)
    assert mn.DistortionSettings.of(mn.DistortionSettings("scip", gap=0.1)).gap == 0.1
    with pytest.raises(BackendMissing, match="no backend is called `clever`"):
        mn.MipSettings.of("clever")


def test_a_gap_ends_the_search_for_the_nearest_change():
    near = mn.minimum_distortion(NETWORK, [0.3, 0.1], upper=0.5, backend=mn.DistortionSettings(gap=0.2, seed=3))
    assert near.lower <= 0.1 + 1e-9
    assert near.upper >= 0.1 - 1e-9
    assert near.gap <= 0.21


def test_a_margin_needs_a_label():
    with pytest.raises(InputError, match="names no class that should win"):
        mn.maximum_margin(NETWORK, REGION, mn.Classes(targets=[1]))


def test_the_property_of_robustness_is_what_robustness_verifies():
    for x, radius, status in (([0.3, 0.1], 0.09, "unsat"), ([0.3, 0.1], 0.11, "sat")):
        assert mn.robustness(NETWORK, x, radius=radius).status == status
        question = mn.robustness_property(NETWORK, x, radius=radius)
        assert mn.verify(NETWORK, question, cross_check="scip", seed=1).status == status


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (
            "verify",
            mn.DistortionSettings(gap=0.5),
            "`DistortionSettings`, which is for `minimum_distortion`; this function takes .*`mn.MipSettings`",
        ),
        ("verify", mn.SolveSettings(), "`SolveSettings`, which is for `weight_path`, .*; this function takes .*`mn.MipSettings`"),
        (
            "minimum_distortion",
            mn.SolveSettings(),
            "`SolveSettings`, which is for `weight_path`, .*; this function takes .*`mn.DistortionSettings`",
        ),
    ],
)
def test_settings_that_a_function_does_not_use_are_refused(function, settings, message):
    given, upper = {"verify": ((NETWORK, QUESTION), {}), "minimum_distortion": ((NETWORK, [0.3, 0.1]), {"upper": 0.5})}[function]
    with pytest.raises(InputError, match=message):
        getattr(mn, function)(*given, backend=settings, **upper)


def test_functions_that_take_a_solver_refuse_settings():
    model = mn.encode(NETWORK, REGION).model
    with pytest.raises(InputError, match=r"`MipSettings`, which is for `verify`, .*; this function takes the name of a backend"):
        mn.solve(model, backend=mn.MipSettings())
    with pytest.raises(InputError, match=r"`MipSettings`, which is for `verify`, .*; this function takes .*`mn.SolveSettings`"):
        mn.SolveSettings.of(mn.MipSettings())


MOVED = {
    "verify": ("options", "mn.MipSettings(..., options=...)"),
    "reach": ("formulation", "mn.MipSettings(..., formulation=...)"),
    "agree": ("known", "leave it out"),
    "robustness": ("oracle", "mn.verify(network, mn.robustness_property(...), oracle=...)"),
    "robustness_property": ("targets", "mn.Classes(label, targets)"),
    "minimum_distortion": ("gap", "mn.DistortionSettings(..., gap=...)"),
    "maximum_margin": ("targets", "mn.Classes(label, targets)"),
    "tighten": ("workers", "mn.TighteningRun(workers=...)"),
    "load": ("classes", "dataclasses.replace(mn.load(...), classes=...)"),
    "importance": ("kind", "mn.Importance(..., kind=...)"),
    "weight_path": ("start", "mn.SolveSettings(..., start=...)"),
    "Importance": ("normalize", "mn.Objective(normalize=...)"),
    "train": ("batch", "mn.TrainingSettings(batch=...)"),
    "compare": ("repeats", "mn.ComparisonSettings(repeats=...)"),
}


@pytest.mark.parametrize("name", MOVED)
def test_an_argument_that_moved_is_answered_with_what_to_write(name):
    moved, hint = MOVED[name]
    with pytest.raises(ArgumentError, match=re.escape(f"`{name}` has no argument `{moved}`; ") + ".*" + re.escape(hint)):
        getattr(mn, name)(**{moved: 1})
