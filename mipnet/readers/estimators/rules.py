"""The rules of the reader, by the name of the estimator's class: transformers map columns to columns, predictors add nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mipnet.errors import UnsupportedError
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.estimators.reading import EstimatorReading

InputColumns = tuple[InputColumn, ...]
TransformerRule = Callable[[EstimatorReading, Any, InputColumns], InputColumns]
PredictorRule = Callable[[EstimatorReading, Any, InputColumns], str]

TRANSFORMER_RULES: dict[str, TransformerRule] = {}
PREDICTOR_RULES: dict[str, PredictorRule] = {}
BOOSTER_RULES: dict[str, PredictorRule] = {}
"""The rules of estimators of other libraries, by the name of the library."""


def reads_transformer(*names: str) -> Callable[[TransformerRule], TransformerRule]:
    """Return a decorator that registers the rule of transformers."""

    def decorate(rule: TransformerRule) -> TransformerRule:
        TRANSFORMER_RULES.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def reads_predictor(*names: str) -> Callable[[PredictorRule], PredictorRule]:
    """Return a decorator that registers the rule of predictors."""

    def decorate(rule: PredictorRule) -> PredictorRule:
        PREDICTOR_RULES.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def reads_booster(library: str) -> Callable[[PredictorRule], PredictorRule]:
    """Return a decorator that registers the rule of the estimators of a library."""

    def decorate(rule: PredictorRule) -> PredictorRule:
        BOOSTER_RULES[library] = rule
        return rule

    return decorate


def class_name(estimator: Any) -> str:
    """Return the name of an estimator's class if it is one of scikit-learn; raises `UnsupportedError` for others, also for subclasses."""
    kind = type(estimator)
    if kind.__module__.partition(".")[0] != "sklearn":
        own = next((base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] == "sklearn" and base is not kind), None)
        told = f", a class of its own over {own}" if own and own not in ("BaseEstimator", "RegressorMixin") else ""
        raise UnsupportedError(f"the estimator is a {kind.__name__}{told}; expected one of scikit-learn, LightGBM or XGBoost: {readable()}")
    return kind.__name__


def readable() -> str:
    """Return the names of all estimators that have a rule."""
    return ", ".join(sorted({*TRANSFORMER_RULES, *PREDICTOR_RULES}))


def transformed(reading: EstimatorReading, transformer: Any, columns: InputColumns) -> InputColumns:
    """Return the columns after a transformer."""
    if transformer is None or (isinstance(transformer, str) and transformer == "passthrough"):
        return columns
    name = class_name(transformer)
    if name not in TRANSFORMER_RULES:
        raise UnsupportedError(f"the transformer `{name}` cannot be read; mipnet reads {', '.join(sorted(TRANSFORMER_RULES))}")
    return TRANSFORMER_RULES[name](reading, transformer, columns)


def predicted(reading: EstimatorReading, predictor: Any, columns: InputColumns) -> str:
    """Add the nodes of a predictor that reads columns, and return the last one's name."""
    library = type(predictor).__module__.partition(".")[0]
    if library in BOOSTER_RULES:
        return BOOSTER_RULES[library](reading, predictor, columns)
    name = class_name(predictor)
    if name in PREDICTOR_RULES:
        return PREDICTOR_RULES[name](reading, predictor, columns)
    if name in TRANSFORMER_RULES:
        return reading.emit_columns(transformed(reading, predictor, columns))
    raise UnsupportedError(f"the estimator `{name}` cannot be read; mipnet reads {readable()}")
