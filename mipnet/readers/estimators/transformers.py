"""The rules of transformers: scalers, one-hot encoders, and transformers of some columns; see `mipnet.readers.estimators.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipnet.errors import UnsupportedError
from mipnet.readers.estimators.columns import ColumnStep, InputColumn
from mipnet.readers.estimators.reading import EstimatorReading, TakenEncoder, refuse
from mipnet.readers.estimators.rules import InputColumns, reads_transformer, transformed


def _each(columns: InputColumns, *steps: tuple[Any, Any]) -> InputColumns:
    """Return the columns after operations ``(name, one number per column or None)``."""
    found = list(columns)
    for operation, values in steps:
        if values is not None:
            found = [each.then(ColumnStep(operation, float(value))) for each, value in zip(found, values, strict=True)]
    return tuple(found)


@reads_transformer("StandardScaler")
def standard_scaler(reading: EstimatorReading, scaler: Any, columns: InputColumns) -> InputColumns:
    """Read ``(x - mean) / scale``."""
    return _each(columns, ("subtract", scaler.mean_ if scaler.with_mean else None), ("divide", scaler.scale_))


@reads_transformer("RobustScaler")
def robust_scaler(reading: EstimatorReading, scaler: Any, columns: InputColumns) -> InputColumns:
    """Read ``(x - center) / scale``."""
    return _each(columns, ("subtract", scaler.center_), ("divide", scaler.scale_))


@reads_transformer("MaxAbsScaler")
def max_abs_scaler(reading: EstimatorReading, scaler: Any, columns: InputColumns) -> InputColumns:
    """Read ``x / scale``, clipped to [-1, 1] if asked."""
    return _clipped(_each(columns, ("divide", scaler.scale_)), (-1.0, 1.0), wanted=getattr(scaler, "clip", False))


@reads_transformer("MinMaxScaler")
def min_max_scaler(reading: EstimatorReading, scaler: Any, columns: InputColumns) -> InputColumns:
    """Read ``scale x + min``, clipped to the feature range if asked."""
    return _clipped(_each(columns, ("multiply", scaler.scale_), ("add", scaler.min_)), scaler.feature_range, wanted=scaler.clip)


def _clipped(columns: InputColumns, ends: Sequence[float], *, wanted: bool) -> InputColumns:
    return tuple(each.then(ColumnStep("clip", *map(float, ends))) for each in columns) if wanted else columns


@reads_transformer("SimpleImputer")
def simple_imputer(reading: EstimatorReading, imputer: Any, columns: InputColumns) -> InputColumns:
    """Read nothing: no input of a network is missing."""
    missing = imputer.missing_values
    if not (missing is None or (isinstance(missing, float) and np.isnan(missing))) or imputer.add_indicator:
        refuse(imputer, "it replaces a number, or tells which ones are missing; expected `missing_values=nan` and no indicator")
    if len(imputer.get_feature_names_out()) != len(columns):
        refuse(imputer, "it drops features that have no values")
    return columns


@reads_transformer("FunctionTransformer")
def function_transformer(reading: EstimatorReading, transformer: Any, columns: InputColumns) -> InputColumns:
    """Read the identity, as which a ColumnTransformer keeps `passthrough`."""
    if transformer.func is not None:
        refuse(transformer, "it applies a function of Python; expected `func=None`, the identity")
    return columns


@reads_transformer("Pipeline")
def pipeline(reading: EstimatorReading, steps: Any, columns: InputColumns) -> InputColumns:
    """Read one transformer after another."""
    for _, step in steps.steps:
        columns = transformed(reading, step, columns)
    return columns


@reads_transformer("ColumnTransformer")
def column_transformer(reading: EstimatorReading, whole: Any, columns: InputColumns) -> InputColumns:
    """Read transformers of some columns each, whose results stand side by side."""
    names = [str(name) for name in getattr(whole, "feature_names_in_", ())]
    found: list[InputColumn] = []
    for name, transformer, wanted in whole.transformers_:
        places = positions(wanted, names, len(columns))
        if isinstance(transformer, str) and transformer == "drop":
            continue
        part = transformed(reading, transformer, tuple(columns[place] for place in places)) if places else ()
        weight = (whole.transformer_weights or {}).get(name)
        found += part if weight is None else _each(part, ("multiply", [weight] * len(part)))
    if not found:
        refuse(whole, "it has no columns")
    return tuple(found)


def positions(wanted: Any, names: Sequence[str], count: int) -> list[int]:
    """Return the numbers of the columns that a ColumnTransformer selects: by name, number, mask or slice."""
    if isinstance(wanted, slice) and any(isinstance(end, str) for end in (wanted.start, wanted.stop)):
        first = 0 if wanted.start is None else names.index(wanted.start)
        last = count if wanted.stop is None else names.index(wanted.stop) + 1  # the last name is included
        return list(range(count))[first : last : wanted.step]
    if isinstance(wanted, slice):
        return list(range(count))[wanted]
    listed = np.atleast_1d(np.asarray(wanted))
    if listed.dtype == bool:
        return [int(place) for place in np.flatnonzero(listed)]
    return [names.index(each) if isinstance(each, str) else int(each) % count for each in listed.tolist()]


@reads_transformer("OneHotEncoder")
def one_hot_encoder(reading: EstimatorReading, encoder: Any, columns: InputColumns) -> InputColumns:
    """Take the encoder off: the inputs of the network are its columns, which stand in place of the features that it codes."""
    if any(each.steps or each.code is not None for each in columns):
        refuse(encoder, "it codes a feature that was changed before; expected one of the estimator's own features")
    twice = [each.feature for each in columns if each.feature in reading.codes]
    if twice:
        raise UnsupportedError(f"feature `{reading.name_of(twice[0])}` is coded by two OneHotEncoders; expected one")
    named = hasattr(encoder, "feature_names_in_")
    names = list(encoder.get_feature_names_out(None if named else [reading.name_of(each.feature) for each in columns]))
    found: list[InputColumn] = []
    for place, each in enumerate(columns):
        own, names = names[: (count := _columns_of(encoder, place))], names[count:]
        reading.codes[each.feature] = tuple(map(str, own))
        found += [InputColumn(each.feature, code) for code in range(count)]
    reading.encoders.append(TakenEncoder(encoder, tuple(each.feature for each in columns)))
    return tuple(found)


def _columns_of(encoder: Any, place: int) -> int:
    """Return the number of columns that code a feature: one per category, one for all infrequent ones, and less a dropped one."""
    infrequent = getattr(encoder, "infrequent_categories_", None)
    rare = None if infrequent is None else infrequent[place]
    dropped = encoder.drop_idx_ is not None and encoder.drop_idx_[place] is not None
    return len(encoder.categories_[place]) - (0 if rare is None else len(rare) - 1) - dropped
