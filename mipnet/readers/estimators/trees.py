"""The rules of decision trees, forests and boosted trees; see `mipnet.readers.estimators.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipnet.arrays import Array
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.readers.estimators.reading import EstimatorReading, refuse
from mipnet.readers.estimators.rules import InputColumns, reads_predictor
from mipnet.readers.estimators.tree_tables import TreeComparison, TreeTable, emit_trees

FLOAT32_COMPARISON = TreeComparison(single=True)
"""scikit-learn casts the inputs of all trees but those of histograms to float32."""

IDENTITY_LOSSES = ("squared_error", "absolute_error", "huber", "quantile")
"""Losses of boosted trees whose prediction is the sum of the trees."""


@reads_predictor("DecisionTreeRegressor", "ExtraTreeRegressor", "DecisionTreeClassifier", "ExtraTreeClassifier")
def decision_tree(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read one tree: its value, or the shares of the classes in its leaves."""
    return _mean(reading, model, [model], columns)


@reads_predictor("RandomForestRegressor", "ExtraTreesRegressor", "RandomForestClassifier", "ExtraTreesClassifier")
def forest(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read the mean of trees; a classifier's outputs are its probabilities, without a softmax."""
    return _mean(reading, model, model.estimators_, columns)


def _mean(reading: EstimatorReading, model: Any, trees: Sequence[Any], columns: InputColumns) -> str:
    if hasattr(model, "classes_") and model.n_outputs_ > 1:
        refuse(model, "it gives every sample several labels; expected one class per sample")
    tables = [_table(each.tree_, _leaf_values(each) / len(trees)) for each in trees]
    return emit_trees(reading, columns, tables, np.zeros(tables[0].value.shape[1]), FLOAT32_COMPARISON)


def _leaf_values(model: Any) -> Array:
    value = np.asarray(model.tree_.value, dtype=np.float64)
    if hasattr(model, "classes_"):
        return np.asarray(value[:, 0] / value[:, 0].sum(axis=1, keepdims=True))
    return np.asarray(value[:, :, 0])


def _table(tree: Any, value: Array) -> TreeTable:
    feature = np.where(tree.children_left < 0, -1, tree.feature)
    return TreeTable(feature, tree.children_left, tree.children_right, np.asarray(tree.threshold, dtype=np.float64), value)


@reads_predictor("GradientBoostingRegressor", "GradientBoostingClassifier")
def gradient_boosting(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read ``init + learning_rate * sum of trees``; the probabilities of a classifier are the softmax of the scores."""
    if model.loss not in (*IDENTITY_LOSSES, "log_loss"):
        refuse(model, f"its loss is `{model.loss}`; expected {', '.join(IDENTITY_LOSSES)} or log_loss")
    if not (isinstance(model.init_, str) and model.init_ == "zero") and type(model.init_).__name__ not in (
        "DummyRegressor",
        "DummyClassifier",
    ):
        refuse(model, f"it starts from a {type(model.init_).__name__}; expected the default `init`, or `zero`")
    first = model._raw_predict_init(np.zeros((1, len(columns)), dtype=np.float32))[0]
    scores = model.estimators_.shape[1]
    trees = [
        (k, _table(each.tree_, model.learning_rate * each.tree_.value[:, 0])) for row in model.estimators_ for k, each in enumerate(row)
    ]
    return emit_scores(reading, columns, trees, np.broadcast_to(first, scores), FLOAT32_COMPARISON, logits=hasattr(model, "classes_"))


@reads_predictor("HistGradientBoostingRegressor", "HistGradientBoostingClassifier")
def histogram_boosting(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read the sum of trees, which compare in float64; the probabilities of a classifier are the softmax of the scores."""
    if model.loss not in (*IDENTITY_LOSSES, "log_loss"):
        refuse(model, f"its loss is `{model.loss}`; expected squared_error, absolute_error, quantile or log_loss")
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        refuse(model, "it splits categories; expected features that are numbers, or coded by a OneHotEncoder before")
    trees = []
    for row in model._predictors:
        for k, each in enumerate(row):
            nodes = each.nodes
            feature = np.where(nodes["is_leaf"] != 0, -1, nodes["feature_idx"].astype(np.int64))
            left, right = (nodes[side].astype(np.int64) for side in ("left", "right"))
            trees.append((k, TreeTable(feature, left, right, nodes["num_threshold"].astype(np.float64), nodes["value"][:, None])))
    first = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    return emit_scores(reading, columns, trees, first, TreeComparison(), logits=hasattr(model, "classes_"))


def emit_scores(
    reading: EstimatorReading,
    columns: InputColumns,
    trees: Sequence[tuple[int, TreeTable]],
    first: Array,
    comparison: TreeComparison,
    *,
    logits: bool,
) -> str:
    """Add scores that start at ``first``, each with its own trees; of two classes the logits are 0 and the only score."""
    shift, count = (1, 2) if logits and len(first) == 1 else (0, len(first))
    if logits:
        reading.softmax = FinalSoftmax("softmax", (0,))
    tables = []
    for score, tree in trees:
        value = np.zeros((len(tree.feature), count))
        value[:, score + shift] = tree.value[:, 0]
        tables.append(TreeTable(tree.feature, tree.left, tree.right, tree.threshold, value))
    constant = np.zeros(count)
    constant[shift:] = first
    return emit_trees(reading, columns, tables, constant, comparison)
