"""The rules of linear models, of multi-layer perceptrons and of what stands around a predictor; see `mipnet.readers.estimators.rules`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mipnet.layers import ReLU, Scale
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.estimators.reading import EstimatorReading, refuse
from mipnet.readers.estimators.rules import InputColumns, predicted, reads_predictor, transformed

READ_ACTIVATIONS = ("relu", "identity")
"""The activations of multi-layer perceptrons that are read."""


@reads_predictor(
    *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge", "HuberRegressor"),
    *("MultiTaskLasso", "MultiTaskElasticNet", "QuantileRegressor", "SGDRegressor", "LinearSVR"),
)
def linear_regressor(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read ``coef @ x + intercept``."""
    return reading.emit_linear(reading.emit_columns(columns), model.coef_, model.intercept_)


@reads_predictor("LogisticRegression", "LogisticRegressionCV")
def logistic_regression(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read the logits; the probabilities are their softmax."""
    if len(model.classes_) > 2 and (model.solver == "liblinear" or getattr(model, "multi_class", "auto") == "ovr"):
        refuse(model, "it was trained one class against the rest, and its probabilities are no softmax; expected another solver")
    return reading.emit_logits(reading.emit_columns(columns), model.coef_, model.intercept_)


@reads_predictor("MLPRegressor", "MLPClassifier")
def multi_layer_perceptron(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read dense layers with ReLUs between them; the probabilities of a classifier are the softmax of the last one."""
    if model.activation not in READ_ACTIVATIONS:
        refuse(model, f"its activation is `{model.activation}`; expected {' or '.join(f'`{each}`' for each in READ_ACTIVATIONS)}")
    classifier = hasattr(model, "classes_")
    if classifier and model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        refuse(model, "it gives every sample several labels; expected one class per sample")
    if not classifier and model.out_activation_ != "identity":
        refuse(model, f"the activation of its output is `{model.out_activation_}`; expected `identity`")
    value = reading.emit_columns(columns)
    *hidden, last = zip(model.coefs_, model.intercepts_, strict=True)
    for weight, bias in hidden:
        value = reading.emit_linear(value, weight.T, bias)
        value = reading.emit(ReLU(), value) if model.activation == "relu" else value
    return (reading.emit_logits if classifier else reading.emit_linear)(value, last[0].T, last[1])


@reads_predictor("Pipeline")
def pipeline(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read transformers and the predictor at the end."""
    for _, step in model.steps[:-1]:
        columns = transformed(reading, step, columns)
    last = model.steps[-1][1]
    return reading.emit_columns(columns) if isinstance(last, str) or last is None else predicted(reading, last, columns)


@reads_predictor("TransformedTargetRegressor")
def transformed_target(reading: EstimatorReading, model: Any, columns: InputColumns) -> str:
    """Read the regressor, and undo the scaling of its target."""
    value = predicted(reading, model.regressor_, columns)
    if model.func is not None or model.inverse_func is not None:
        refuse(model, "its target is transformed by a function of Python; expected a scaler as `transformer`")
    outputs = len(np.atleast_1d(model.transformer_.inverse_transform(np.zeros((1, _outputs(reading, value))))[0]))
    target = transformed(reading, model.transformer_, tuple(InputColumn(each) for each in range(outputs)))
    if any(each.clips for each in target):
        refuse(model, "its target is clipped, which cannot be undone")
    factors, shifts = np.array([each.lines[0] for each in target]).T
    if (factors == 1).all() and not shifts.any():
        return value
    return reading.emit(Scale(torch.tensor(1 / factors), torch.tensor(-shifts / factors)), value)


def _outputs(reading: EstimatorReading, name: str) -> int:
    """Return the number of outputs of the last node, a dense layer or another vector."""
    return int(np.prod(next(node.shape for node in reading.network().nodes if node.name == name)))
