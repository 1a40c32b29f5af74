"""Networks from estimators and pipelines of scikit-learn, read without ONNX and compared with the estimator."""

from __future__ import annotations

from typing import Any

from mipnet.errors import InputError, UnsupportedError, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.graph import Network
from mipnet.readers.estimators import boosters, linear, transformers, trees  # noqa: F401 - they register the rules
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.estimators.comparison import check_against
from mipnet.readers.estimators.reading import EstimatorReading
from mipnet.readers.estimators.rules import predicted

Estimator = Any
"""A fitted estimator of scikit-learn."""


def is_estimator(given: object) -> bool:
    """Return whether an object looks like an estimator of scikit-learn."""
    return not isinstance(given, type) and hasattr(given, "fit") and hasattr(given, "get_params")


@suggest_keywords
def from_sklearn(estimator: Estimator, time_limit: TimeLimit = None) -> Network:
    """Read the network that a fitted estimator or pipeline of scikit-learn computes, with float64 weights, without ONNX.

        net = mn.from_sklearn(make_pipeline(StandardScaler(), MLPRegressor()).fit(frame, y))

    Read are multi-layer perceptrons (`relu`, `identity`), linear models, logistic regression; decision trees, random forests, extra trees,
    gradient boosting and histogram gradient boosting, and the estimators of LightGBM and XGBoost (`TreeEnsemble`); the scalers,
    ``ColumnTransformer``, ``Pipeline``, ``TransformedTargetRegressor``; and ``OneHotEncoder`` at the start: it is taken off, and the
    columns that it makes are inputs, in place of the feature that it codes.

    A regressor becomes a network with one output per target, a classifier one with an output per class, in the order of ``classes_``.
    ``Network.outputs`` is ``predict``, or ``predict_proba``; the final softmax of a classifier is taken off, see `Network.softmax`, and
    the logits of two classes are 0 and the decision function.  If the estimator was fitted with column names, these are the
    `Network.input_names`.  ``time_limit`` is in seconds of the whole call, None for no limit.

    Raises `InputError` for what is no estimator or not fitted, `UnsupportedError` for estimators that cannot be read, with their names,
    `NetworkError` if the network differs from the estimator, and `TimeLimitReached` at the end of the time.
    """
    deadline = Deadline.after(time_limit)
    reading = EstimatorReading(estimator, *_features(estimator), deadline=deadline)
    predicted(reading, estimator, tuple(InputColumn(feature) for feature in range(reading.count)))
    network = reading.network()
    deadline.check(reading.work)
    check_against(reading, network)
    return network


def _features(estimator: Any) -> tuple[int, tuple[str, ...]]:
    """Return the number of an estimator's features, and their names if it has any."""
    if not is_estimator(estimator):
        what = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise InputError(f"the estimator is {'the class' if isinstance(estimator, type) else 'a'} {what}; expected a fitted estimator")
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise InputError(f"the {type(estimator).__name__} is not fitted; call its `fit` before it is read") from None
    found = [(each.n_features_in_, each) for each in _first_steps(estimator) if getattr(each, "n_features_in_", None) is not None]
    if not found:
        raise UnsupportedError(f"the {type(estimator).__name__} does not say how many features it takes (`n_features_in_`)")
    names = (getattr(each, "feature_names_in_", ()) for _, each in found)
    return int(found[0][0]), next((tuple(map(str, each)) for each in names if len(each)), ())


def _first_steps(estimator: Any) -> list[Any]:
    """Return an estimator and those in it that see its own features first."""
    steps = [step for _, step in getattr(estimator, "steps", ()) if step is not None and not isinstance(step, str)][:1]
    inner = [*steps, *([estimator.regressor_] if hasattr(estimator, "regressor_") else [])]
    return [estimator, *(each for part in inner for each in _first_steps(part))]
