"""Trees of scikit-learn, and models of LightGBM and XGBoost in files: equal to `predict`, at thresholds and at their neighbours too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import mipnet as mn
from mipnet.errors import NetworkError, UnsupportedError
from tests.readers.test_estimators import outputs, swept

RNG = np.random.default_rng(1)
X = np.round(RNG.normal(size=(80, 3)), 1)
X[:, 2] = RNG.integers(0, 5, 80)
Y = X[:, 0] + (X[:, 1] > 0) * X[:, 2]
PAIR = np.column_stack([Y, X[:, 1] * Y])
TWO, THREE = (Y > 0).astype(int), np.digitize(Y, [0.0, 1.0])
FILES = Path(__file__).parent / "boosters"

MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "tree": (lambda: DecisionTreeRegressor(random_state=0), Y),
    "tree-pair": (lambda: DecisionTreeRegressor(max_depth=4), PAIR),
    "tree-classes": (lambda: DecisionTreeClassifier(max_depth=4), THREE),
    "forest": (lambda: RandomForestRegressor(5, random_state=0), Y),
    "forest-pair": (lambda: ExtraTreesRegressor(3, random_state=0), PAIR),
    "forest-scaled": (lambda: make_pipeline(StandardScaler(), RandomForestRegressor(5, random_state=0)), Y),
    "forest-classes": (lambda: RandomForestClassifier(5, random_state=0), THREE),
    "extra-two": (lambda: make_pipeline(RobustScaler(), ExtraTreesClassifier(4, random_state=0)), TWO),
    "boosting": (lambda: GradientBoostingRegressor(n_estimators=6, loss="huber"), Y),
    "boosting-two": (lambda: GradientBoostingClassifier(n_estimators=5), TWO),
    "boosting-classes": (lambda: make_pipeline(MinMaxScaler(), GradientBoostingClassifier(n_estimators=3, init="zero")), THREE),
    "histogram": (lambda: HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=4), Y),
    "histogram-scaled": (lambda: make_pipeline(MinMaxScaler(clip=True), HistGradientBoostingRegressor(max_iter=5)), Y),
    "histogram-two": (lambda: HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=4), TWO),
    "histogram-classes": (lambda: make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3)), THREE),
}


def at_thresholds(net: mn.Network, count: int) -> np.ndarray:
    """Random inputs, many of them thresholds, their neighbours in float64 and in float32, and numbers of one decimal."""
    tree, x = net.output.layer, RNG.normal(size=(count, 3)) * 2
    for feature in range(3):
        at = tree.thresholds.numpy()[tree.splits[:, 0].numpy() == feature]
        if len(at):
            chosen = RNG.choice(at, count)
            single = chosen.astype(np.float32)
            near = [chosen, *(np.nextafter(chosen, end) for end in (-np.inf, np.inf)), single, np.round(chosen, 1)]
            near += [np.nextafter(single, np.float32(end)) for end in (-np.inf, np.inf)]
            taken = np.array([np.asarray(each, dtype=np.float64) for each in near])[RNG.integers(len(near), size=count), np.arange(count)]
            x[:, feature] = np.where(RNG.uniform(size=count) < 0.8, taken, x[:, feature])
    return x


@pytest.mark.parametrize("name", swept(MODELS, ("forest-scaled", "boosting-two", "histogram")))
def test_trees_predict_what_the_estimator_predicts_at_thresholds_too(name: str) -> None:
    make, target = MODELS[name]
    estimator = make().fit(X, target)
    net = mn.from_sklearn(estimator)
    x = at_thresholds(net, 5000)
    np.testing.assert_allclose(net.outputs(x), outputs(estimator, x), rtol=0, atol=1e-9)


EXPECTED: dict[str, dict[str, list[list[float]]]] = json.loads((FILES / "predictions.json").read_text())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_models_of_boosters_are_read_from_their_files(name: str) -> None:
    net = mn.read(FILES / name)
    assert net.input_names == ("wind", "load", "price")
    rounding = 1e-9 if name.startswith("lightgbm") else 1e-6  # XGBoost adds up in float32
    np.testing.assert_allclose(net.outputs(EXPECTED[name]["x"]), EXPECTED[name]["y"], rtol=0, atol=rounding)


CHANGED = {
    "objective": ("lightgbm_regressor.txt", "objective=regression", "objective=poisson", "its objective is `poisson`"),
    "linear": ("lightgbm_regressor.txt", "is_linear=0", "is_linear=1", "its leaves are linear"),
    "categories": ("lightgbm_regressor.txt", "decision_type=2", "decision_type=1", "it splits categories"),
    "zero": ("lightgbm_regressor.txt", "decision_type=2", "decision_type=4", "0 counts as missing"),
    "xgboost": ("xgboost_two.json", "binary:logistic", "count:poisson", "its objective is `count:poisson`"),
    "dart": ("xgboost_regressor.json", '"name":"gbtree"', '"name":"dart"', "its booster is `dart`"),
}


@pytest.mark.parametrize("name", swept(CHANGED, ("objective", "xgboost")))
def test_what_a_file_has_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    file, old, new, told = CHANGED[name]
    text = (FILES / file).read_text()
    assert old in text
    changed = tmp_path / file
    changed.write_text(text.replace(old, new))
    with pytest.raises(UnsupportedError, match=told):
        mn.read(changed)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{}"), ("b.txt", "hello"), ("c.json", "[1, 2]"), ("d.txt", "tree\nversion=v4\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(NetworkError, match=f"{name}` is no model of LightGBM"):
            mn.read(tmp_path / name)
    with pytest.raises(NetworkError, match="no file"):
        mn.read(tmp_path / "none.json")


def test_trees_that_cannot_be_read_are_named() -> None:
    categories = HistGradientBoostingRegressor(max_iter=2, categorical_features=[2]).fit(X, Y)
    with pytest.raises(UnsupportedError, match="it splits categories"):
        mn.from_sklearn(categories)
    with pytest.raises(UnsupportedError, match="its loss is `poisson`"):
        mn.from_sklearn(HistGradientBoostingRegressor(max_iter=2, loss="poisson").fit(X, np.abs(Y)))
    with pytest.raises(UnsupportedError, match="its loss is `exponential`"):
        mn.from_sklearn(GradientBoostingClassifier(n_estimators=2, loss="exponential").fit(X, TWO))
    with pytest.raises(UnsupportedError, match="it starts from a Ridge"):
        mn.from_sklearn(GradientBoostingRegressor(n_estimators=2, init=Ridge()).fit(X, Y))
