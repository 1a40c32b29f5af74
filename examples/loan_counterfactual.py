"""Say what a person may change to get a loan: the nearest inputs with another class, whole numbers, categories and data respected.

Run it with ``python examples/loan_counterfactual.py``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.neural_network import MLPClassifier

import mipnet as mn

g = np.random.default_rng(0)
rents = g.integers(0, 2, 400)
PEOPLE = pd.DataFrame({"age": g.integers(20, 70, 400), "income": g.uniform(10, 80, 400), "debts": g.integers(0, 6, 400)})
PEOPLE = PEOPLE.assign(rents=rents, owns=1 - rents).astype(float)
PAID = (PEOPLE["income"] - 8 * PEOPLE["debts"] + 10 * PEOPLE["owns"] > 25).astype(int)

SCALE = pd.Series({"age": 70.0, "income": 80.0, "debts": 6.0, "rents": 1.0, "owns": 1.0})
fitted = MLPClassifier((8,), max_iter=300, random_state=0, learning_rate_init=0.02, tol=1e-3).fit(PEOPLE / SCALE, PAID)
(first, second), (bias, last) = fitted.coefs_, fitted.intercepts_
layers = [("hidden", mn.Dense((first / SCALE.values[:, None]).T, bias)), ("relu", mn.ReLU()), ("score", mn.Dense(second.T, last))]
net = mn.Network.build((5,), layers).with_input_names(list(PEOPLE.columns))  # a score above 0 is a loan

person = {"age": 31.0, "income": 30.0, "debts": 3.0, "rents": 1.0, "owns": 0.0}
deviation = (PEOPLE - PEOPLE.median()).abs().median().clip(lower=1.0)
settings = mn.CounterfactualSettings(within=mn.ConvexHull(PEOPLE[PAID == 1].head(60)), weights=1 / deviation, count=2, time_limit=60)
found = mn.counterfactual(net, person, (0.1, None), immutable=["age"], integer=["debts"], one_hot=[["rents", "owns"]], backend=settings)

for number, answer in enumerate(found.answers, start=1):
    changes = ", ".join(f"{name} {value:+.2f}" for name, value in answer.change.to_series().items())
    print(f"{number}: {changes}; distance {answer.distance:.4f}, proven at least {answer.bound:.4f}, score {float(answer.output[0]):.3f}")
