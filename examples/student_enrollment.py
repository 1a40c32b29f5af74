"""Offer scholarships so that as many students as possible enrol, as a network predicts it from grades, test and scholarship.

The model is that of Bergman, Huang, Brooks, Lodi and Raghunathan, "JANOS: an integrated predictive and prescriptive modeling framework"
(INFORMS Journal on Computing, 2022), which many libraries have as an example; the data are made here.  Run it with
``python examples/student_enrollment.py``.
"""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mipnet as mn

rng = np.random.default_rng(0)


def students(count: int) -> pd.DataFrame:
    """Test scores and grades; better students have more offers from elsewhere."""
    ability = rng.normal(size=count)
    sat = (1200 + 130 * ability + 60 * rng.normal(size=count)).clip(900, 1600)
    gpa = (3.0 + 0.4 * ability + 0.2 * rng.normal(size=count)).clip(2.0, 4.0)
    return pd.DataFrame({"sat": sat, "gpa": gpa}).rename_axis("student")


def enrols(data: pd.DataFrame) -> np.ndarray:
    """Whether a student enrols: a scholarship (in 10,000 dollars) helps, up to about 15,000."""
    score = 1.5 + 2.2 * np.tanh(data["scholarship"]) - 0.006 * (data["sat"] - 1200) - 1.5 * (data["gpa"] - 3)
    return (rng.uniform(size=len(data)) < 1 / (1 + np.exp(1.5 - score))).astype(float)


past = students(2000).assign(scholarship=rng.uniform(0, 2.5, 2000))
predictor = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", max_iter=60, tol=1e-2, random_state=0))
predictor.fit(past, enrols(past))

applicants = students(20)
model = linopy.Model()
scholarship = model.add_variables(0, 2.5, coords=[applicants.index], name="scholarship")
model.add_constraints(scholarship.sum() <= 0.2 * len(applicants), name="budget")
known = {name: values.to_xarray() for name, values in applicants.items()}
chance = mn.add_network(model, predictor, known | {"scholarship": scholarship})  # one network per student
model.add_objective(chance.output.sum(), sense="max")

result = mn.solve(model, time_limit=60)
none = predictor.predict(applicants.assign(scholarship=0.0)).sum()
even = predictor.predict(applicants.assign(scholarship=0.2)).sum()
print(f"expected students: {none:.2f} without scholarships, {even:.2f} with equal ones, {result.objective:.2f} with the best ones")
print(f"{result.status.value}, verified: {result.verified}, error of the network {chance.error():.1e}")
print(applicants.assign(scholarship=scholarship.solution.to_pandas()).query("scholarship > 0.01").round(2))
