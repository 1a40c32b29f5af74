"""LightGBM and XGBoost from their model files, text and JSON, without these libraries; see `mipnet.readers.estimators.rules`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mipnet.arrays import Array
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.graph import Network
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.estimators.reading import EstimatorReading
from mipnet.readers.estimators.rules import InputColumns, reads_booster
from mipnet.readers.estimators.tree_tables import TreeComparison, TreeTable
from mipnet.readers.estimators.trees import emit_scores
from mipnet.readers.file_bytes import no_file

XGBOOST_COMPARISON = TreeComparison(single=True, strict=True)
"""XGBoost casts inputs to float32, and goes left where ``x < t``."""

LIGHTGBM_COMPARISON = TreeComparison(zero=float(np.float32(1e-35)))
"""LightGBM takes numbers up to 1e-35 as 0, and goes left where ``x <= t``."""

XGBOOST_ROUNDING = 1e-5
"""XGBoost adds leaves up in float32."""

LIGHTGBM_SUMS = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
XGBOOST_SUMS = ("reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror")
"""Objectives whose prediction is the sum of the trees."""

XGBOOST_CLASSES = ("binary:logistic", "binary:logitraw", "multi:softmax", "multi:softprob")

CATEGORICAL_BIT, MISSING_SHIFT, ZERO_IS_MISSING = 1, 2, 1
"""Bits of LightGBM's `decision_type`: the lowest marks categories, the third and fourth say what counts as missing."""


@dataclass(frozen=True, eq=False)
class BoosterModel:
    """A model: its features, the trees with the number of the score that each adds to, and the start of each score."""

    count: int
    names: tuple[str, ...]
    trees: list[tuple[int, TreeTable]]
    first: Array
    logits: bool
    comparison: TreeComparison
    rounding: float


def read_booster(path: str | Path, time_limit: TimeLimit = None) -> Network:
    """Read a file that `Booster.save_model` of LightGBM (text) or XGBoost (JSON) wrote; raises `NetworkError` for any other."""
    path, deadline = Path(path), Deadline.after(time_limit)
    deadline.check(f"read `{path}`")
    if not path.is_file():
        raise NetworkError(f"{no_file(path)}; expected a model of LightGBM (text) or XGBoost (JSON)")
    try:
        model = parse_model(path.read_text(encoding="utf-8"))
    except UnsupportedError as error:
        raise UnsupportedError(f"`{path}`: {error}") from None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        raise NetworkError(f"`{path}` is no model of LightGBM (text) or XGBoost (JSON), as `Booster.save_model` writes it") from None
    reading = EstimatorReading(None, model.count, model.names, deadline=deadline)
    emit_model(reading, model, tuple(InputColumn(feature) for feature in range(model.count)))
    return reading.network()


def emit_model(reading: EstimatorReading, model: BoosterModel, columns: InputColumns) -> str:
    """Add the node of a model that reads columns, and return its name."""
    reading.rounding = max(reading.rounding, model.rounding)
    return emit_scores(reading, columns, model.trees, model.first, model.comparison, logits=model.logits)


@reads_booster("lightgbm")
def lightgbm(reading: EstimatorReading, estimator: Any, columns: InputColumns) -> str:
    """Read the text that a LightGBM estimator writes of itself."""
    return emit_model(reading, parse_model(estimator.booster_.model_to_string()), columns)


@reads_booster("xgboost")
def xgboost(reading: EstimatorReading, estimator: Any, columns: InputColumns) -> str:
    """Read the JSON that an XGBoost estimator writes of itself."""
    return emit_model(reading, parse_model(estimator.get_booster().save_raw("json").decode()), columns)


def parse_model(text: str) -> BoosterModel:
    """Return the model of a text; raises `UnsupportedError` for objectives and splits that cannot be read."""
    return _lightgbm_model(text) if text.lstrip().startswith("tree") else _xgboost_model(json.loads(text)["learner"])


def _refuse(library: str, why: str) -> NoReturn:
    raise UnsupportedError(f"the {library} model cannot be read: {why}")


def _lightgbm_model(text: str) -> BoosterModel:
    head, *blocks = re.split(r"\nTree=\d+\n", text.partition("\nend of trees")[0])
    facts = _facts(head)
    objective, *settings = facts["objective"].split()
    options = dict(each.partition(":")[::2] for each in settings)
    if objective not in (*LIGHTGBM_SUMS, "binary", "multiclass") or "sqrt" in options:
        _refuse("LightGBM", f"its objective is `{facts['objective']}`; expected {', '.join(LIGHTGBM_SUMS)}, binary or multiclass")
    scores = int(facts["num_tree_per_iteration"])
    factor = float(options.get("sigmoid", 1)) if objective == "binary" else 1.0
    if "average_output" in head.split():
        factor /= max(1, len(blocks) // scores)
    trees = [(number % scores, _lightgbm_tree(_facts(block), factor)) for number, block in enumerate(blocks)]
    names = tuple(facts["feature_names"].split())
    own = not all(re.fullmatch(r"Column_\d+", name) for name in names)
    classes = objective in ("binary", "multiclass")
    count, named = int(facts["max_feature_idx"]) + 1, names if own else ()
    return BoosterModel(count, named, trees, np.zeros(scores), classes, LIGHTGBM_COMPARISON, 1e-9)


def _facts(block: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)


def _lightgbm_tree(facts: dict[str, str], factor: float) -> TreeTable:
    if facts.get("is_linear", "0") != "0":
        _refuse("LightGBM", "its leaves are linear (`linear_tree`); expected constant ones")
    leaf = _numbers(facts["leaf_value"]) * factor
    if int(facts["num_leaves"]) == 1:
        return TreeTable(np.array([-1]), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), leaf[:1, None])
    kinds = _numbers(facts["decision_type"]).astype(np.int64)
    if (kinds & CATEGORICAL_BIT).any():
        _refuse("LightGBM", "it splits categories; expected features that are numbers")
    if ((kinds >> MISSING_SHIFT) & 3 == ZERO_IS_MISSING).any():
        _refuse("LightGBM", "0 counts as missing (`zero_as_missing`)")
    inner = len(kinds)
    left, right = (_numbers(facts[f"{side}_child"]).astype(np.int64) for side in ("left", "right"))
    left, right = (np.append(np.where(side >= 0, side, inner - 1 - side), np.zeros(len(leaf), np.int64)) for side in (left, right))
    feature = np.append(_numbers(facts["split_feature"]).astype(np.int64), np.full(len(leaf), -1))
    threshold = np.append(_numbers(facts["threshold"]), np.zeros(len(leaf)))
    return TreeTable(feature, left, right, threshold, np.append(np.zeros(inner), leaf)[:, None])


def _numbers(text: str) -> Array:
    return np.array([float(each) for each in text.split()])


def _xgboost_model(learner: dict[str, Any]) -> BoosterModel:
    booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    facts = learner["learner_model_param"]
    if objective not in (*XGBOOST_SUMS, *XGBOOST_CLASSES):
        _refuse("XGBoost", f"its objective is `{objective}`; expected {', '.join((*XGBOOST_SUMS, *XGBOOST_CLASSES))}")
    if booster.get("name", "gbtree") != "gbtree":
        _refuse("XGBoost", f"its booster is `{booster['name']}`; expected `gbtree`")
    model = booster["model"]
    scores = max(1, int(facts["num_class"]), int(facts.get("num_target", 1)))
    trees = [(int(score), _xgboost_tree(tree)) for score, tree in zip(model["tree_info"], model["trees"], strict=True)]
    start = np.array(json.loads(re.sub(r"[\[\]]", "", f"[{facts['base_score']}]").join("[]")), dtype=np.float32).astype(np.float64)
    if objective.startswith("binary:logistic"):
        start = np.log(start / (1 - start))
    names = tuple(learner.get("feature_names", ()))
    first = np.broadcast_to(start, scores).copy()
    classes = objective in XGBOOST_CLASSES and objective != "binary:logitraw"
    return BoosterModel(int(facts["num_feature"]), names, trees, first, classes, XGBOOST_COMPARISON, XGBOOST_ROUNDING)


def _xgboost_tree(tree: dict[str, Any]) -> TreeTable:
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        _refuse("XGBoost", "its leaves hold several values (`multi_output_tree`)")
    if any(tree.get("split_type", ())):
        _refuse("XGBoost", "it splits categories; expected features that are numbers")
    left, right, feature = (np.array(tree[key], dtype=np.int64) for key in ("left_children", "right_children", "split_indices"))
    numbers = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    leaf = left < 0
    return TreeTable(np.where(leaf, -1, feature), left, right, np.where(leaf, 0.0, numbers), np.where(leaf, numbers, 0.0)[:, None])
