"""The reader of scikit-learn: networks equal to `predict` and `predict_proba`, names of inputs, and a line for what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, OneHotEncoder, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVR

import mipnet as mn
from mipnet.errors import InputError, MipnetError, NetworkError, UnsupportedError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) * [1, 10, 100] + [0, 5, 1000]
Y = X @ [1, 0.2, 0.03] + RNG.normal(size=60)
PAIR = np.column_stack([Y, -2 * Y + X[:, 0]])
TWO, THREE = (Y.mean() < Y).astype(int), np.digitize(Y, np.quantile(Y, [0.3, 0.6]))
FRAME = pd.DataFrame(X, columns=["wind", "load", "price"])
MIXED = FRAME.assign(colour=RNG.choice(["red", "green", "blue"], 60), day=RNG.integers(1, 4, 60))
mlp = partial(MLPRegressor, hidden_layer_sizes=(5, 3), max_iter=20, random_state=0)
mlp_classes = partial(MLPClassifier, hidden_layer_sizes=(4,), max_iter=20, random_state=0)

Fitted = Callable[[], Any]
NUMBERS: dict[str, Fitted] = {
    "mlp": lambda: make_pipeline(StandardScaler(), mlp()).fit(X, Y),
    "mlp-identity": lambda: mlp(activation="identity").fit(X, PAIR),
    "mlp-two": lambda: make_pipeline(MinMaxScaler((-1, 2), clip=True), mlp_classes()).fit(X, TWO),
    "mlp-three": lambda: make_pipeline(RobustScaler(), mlp_classes()).fit(X, THREE),
    "logistic-two": lambda: LogisticRegression().fit(X, TWO),
    "logistic-three": lambda: make_pipeline(MaxAbsScaler(), LogisticRegression()).fit(X, THREE),
    "linear": lambda: LinearRegression(fit_intercept=False).fit(X, Y),
    "ridge-pair": lambda: make_pipeline(StandardScaler(with_mean=False), Ridge()).fit(X, PAIR),
    "lasso": lambda: make_pipeline(StandardScaler(with_std=False), Lasso()).fit(X, Y),
    "elastic": lambda: ElasticNet().fit(X, Y),
    "target": lambda: TransformedTargetRegressor(
        make_pipeline(SimpleImputer(), StandardScaler(), mlp()), transformer=MinMaxScaler((-1, 3))
    ).fit(X, Y),
    "target-pair": lambda: TransformedTargetRegressor(Ridge(), transformer=StandardScaler()).fit(X, PAIR),
    "transformer": lambda: make_pipeline(StandardScaler(), MinMaxScaler(clip=True)).fit(X),
    "passthrough": lambda: make_pipeline("passthrough", Ridge()).fit(X, Y),
    "numbers": lambda: make_pipeline(
        ColumnTransformer([("a", StandardScaler(), [-1, 0]), ("b", "drop", [0])], remainder="passthrough", transformer_weights={"a": 0.5}),
        Ridge(),
    ).fit(X, Y),
    "mask": lambda: make_pipeline(
        ColumnTransformer([("a", MinMaxScaler(clip=True), [True, False, True])], remainder="passthrough"), Ridge()
    ).fit(X, Y),
    "nested": lambda: make_pipeline(
        ColumnTransformer(
            [("a", make_pipeline(StandardScaler(), MinMaxScaler(clip=True)), slice(1, None)), ("b", RobustScaler(), slice(0, 2))]
        ),
        mlp(),
    ).fit(X, Y),
}
"""Estimators of numbers alone."""
QUICK = ("mlp", "mlp-two", "logistic-three", "target", "nested")


def fitted(make: Fitted) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make()


def outputs(estimator: Any, x: Any) -> np.ndarray:
    name = next(name for name in ("predict_proba", "predict", "transform") if hasattr(estimator, name))
    return np.asarray(getattr(estimator, name)(x), dtype=float).reshape(len(x), -1)


def swept(cases: dict[str, Any], quick: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.sweep) for name in cases]


@pytest.mark.parametrize("name", swept(NUMBERS, QUICK))
def test_the_network_predicts_what_the_estimator_predicts(name: str) -> None:
    estimator = fitted(NUMBERS[name])
    x = X[RNG.integers(60, size=3000)] + RNG.normal(size=(3000, 3)) * [1, 10, 100]
    found, wanted = mn.from_sklearn(estimator).outputs(x), outputs(estimator, x)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-9 * max(1.0, np.abs(wanted).max())


ENCODED: dict[str, tuple[Fitted, tuple[str, ...]]] = {
    "names": (
        lambda: make_pipeline(
            ColumnTransformer([("s", StandardScaler(), ["price", "wind"]), ("c", OneHotEncoder(), ["colour"])], remainder="drop"), Ridge()
        ).fit(MIXED, Y),
        ("wind", "load", "price", "colour_blue", "colour_green", "colour_red", "day"),
    ),
    "dropped": (
        lambda: make_pipeline(
            ColumnTransformer(
                [("c", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(drop="first")), ["day", "colour"])]
            ),
            MinMaxScaler(),
            mlp(),
        ).fit(MIXED, Y),
        ("wind", "load", "price", "colour_green", "colour_red", "day_2", "day_3"),
    ),
    "infrequent": (
        lambda: make_pipeline(
            ColumnTransformer(
                [("c", OneHotEncoder(max_categories=2, sparse_output=False), make_column_selector("colour"))], remainder=StandardScaler()
            ),
            LogisticRegression(),
        ).fit(MIXED, THREE),
        (),
    ),
    "numbers": (
        lambda: make_pipeline(ColumnTransformer([("c", OneHotEncoder(), [1])], remainder=RobustScaler()), Ridge()).fit(
            np.column_stack([X, MIXED["day"]])[:, [0, 3, 1]], Y
        ),
        ("x0", "x1_1.0", "x1_2.0", "x1_3.0", "x2"),
    ),
}


@pytest.mark.parametrize("name", swept(ENCODED, ("names", "dropped")))
def test_a_one_hot_encoder_is_taken_off_and_its_columns_are_inputs(name: str) -> None:
    make, names = ENCODED[name]
    net = mn.from_sklearn(fitted(make))  # which compares the network with the estimator on random categories
    if names:
        assert net.input_names == names
    assert any("was taken off: the inputs are its columns" in note for note in net.notes)


def test_a_coded_input_gives_the_prediction_of_its_category() -> None:
    estimator = fitted(ENCODED["names"][0])
    net = mn.from_sklearn(estimator)
    table = MIXED.drop(columns="colour").assign(**{f"colour_{each}": 1.0 * (MIXED["colour"] == each) for each in ("red", "green", "blue")})
    found = net.outputs(table[list(net.input_names)].to_numpy(float))
    np.testing.assert_allclose(found[:, 0], estimator.predict(MIXED), rtol=0, atol=1e-9)


REFUSED: dict[str, tuple[Callable[[], Any], type[MipnetError], str]] = {
    "activation": (lambda: mlp(activation="tanh").fit(X, Y), UnsupportedError, "MLPRegressor cannot be read: its activation is `tanh`"),
    "several-labels": (lambda: mlp_classes().fit(X, PAIR > 0), UnsupportedError, "several labels"),
    "other": (lambda: SVR().fit(X, Y), UnsupportedError, "the estimator `SVR` cannot be read; mipnet reads"),
    "polynomial": (lambda: make_pipeline(PolynomialFeatures(), Ridge()).fit(X, Y), UnsupportedError, "`PolynomialFeatures` cannot be read"),
    "not-fitted": (lambda: make_pipeline(StandardScaler(), Ridge()), InputError, "the Pipeline is not fitted; call its `fit`"),
    "class": (lambda: Ridge, InputError, "the class Ridge; expected a fitted estimator"),
    "number": (lambda: 3, InputError, "a int; expected a fitted estimator"),
    "target": (
        lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1).fit(X, np.abs(Y)),
        UnsupportedError,
        "its target is transformed by a function",
    ),
    "both": (
        lambda: make_pipeline(ColumnTransformer([("c", OneHotEncoder(), ["day"]), ("p", "passthrough", ["day"])]), Ridge()).fit(MIXED, Y),
        UnsupportedError,
        "`day` is coded by a OneHotEncoder and also used as it is",
    ),
    "coded-late": (
        lambda: make_pipeline(MinMaxScaler(), OneHotEncoder(), Ridge()).fit(X, Y),
        UnsupportedError,
        "it codes a feature that was changed before",
    ),
}


@pytest.mark.parametrize("name", swept(REFUSED, ("activation", "other", "not-fitted", "both")))
def test_what_cannot_be_read_is_named(name: str) -> None:
    make, kind, told = REFUSED[name]
    with pytest.raises(kind, match=told) as caught:
        mn.from_sklearn(fitted(make))
    assert "\n" not in str(caught.value)


def test_a_subclass_is_refused_by_its_name() -> None:
    class Doubled(Ridge):
        def predict(self, given: Any) -> Any:
            return 2 * super().predict(given)

    with pytest.raises(UnsupportedError, match="a Doubled, a class of its own over Ridge"):
        mn.from_sklearn(Doubled().fit(X, Y))


def test_an_estimator_whose_attributes_do_not_explain_it_is_refused() -> None:
    model = Ridge().fit(X, Y)
    model.predict = lambda given: np.zeros(len(given))
    with pytest.raises(NetworkError, match="is not the estimator: on 256 samples they differ by"):
        mn.from_sklearn(model)


def embedded(x: Callable[[linopy.Model], Any]) -> float:
    """The smallest sum of a network's output and a price, over two hours."""
    estimator = fitted(lambda: make_pipeline(StandardScaler(), mlp()).fit(FRAME[["load", "wind"]], Y))
    model = linopy.Model()
    handle = mn.add_network(model, estimator, x(model))
    model.add_objective(handle.output.sum())
    result = mn.solve(model)
    assert result.verified
    inputs = handle.input.solution.values.reshape(2, -1)
    assert handle.error() < 1e-5
    np.testing.assert_allclose(
        estimator.predict(pd.DataFrame(inputs, columns=["load", "wind"])), handle.output.solution.values[:, 0], atol=1e-4
    )
    return float(model.objective.value)


def test_an_estimator_is_embedded_by_the_names_of_its_columns() -> None:
    hours = pd.RangeIndex(2, name="time")

    def by_name(model: linopy.Model) -> Any:
        wind = model.add_variables(0, 2, coords=[hours], name="wind")
        return {"wind": wind, "load": model.add_variables(-5, 5, coords=[hours], name="load")}

    def in_one(model: linopy.Model) -> Any:
        names = pd.Index(["wind", "load"], name="quantity")
        ends = [pd.DataFrame([values] * 2, index=hours, columns=names) for values in ([0.0, -5.0], [2.0, 5.0])]
        return model.add_variables(*ends, name="x")

    assert embedded(by_name) == pytest.approx(embedded(in_one), abs=1e-6)


def test_a_classifier_is_embedded_by_its_logits() -> None:
    net = mn.from_sklearn(LogisticRegression().fit(X, TWO))
    model = linopy.Model()
    x = model.add_variables(0, 1, coords=[pd.RangeIndex(3, name="feature")], name="x")
    with pytest.raises(UnsupportedError, match=r"write `network\.without_softmax\(\)`"):
        mn.add_network(model, net, x)
    assert mn.add_network(model, net.without_softmax(), x).output.sizes == {"fc1_unit": 2}
