"""The comparison of a network with the estimator that it was read from: at random inputs, and at the thresholds of trees."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from mipnet.arrays import Array
from mipnet.errors import NetworkError
from mipnet.network.graph import Network
from mipnet.readers.conversion import one_line
from mipnet.readers.estimators.reading import EstimatorReading

COMPARED_SAMPLES = 256
"""Number of inputs at which a network is compared with its estimator."""


def check_against(reading: EstimatorReading, network: Network) -> None:
    """Raise `NetworkError` unless the outputs of the network are those of the estimator."""
    generator = np.random.default_rng(0)
    table, inputs = sample_inputs(reading, generator, COMPARED_SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = outputs_of(reading.estimator, table)
        except Exception as failure:
            raise NetworkError(
                f"the {type(reading.estimator).__name__} fails on {len(inputs)} random samples ({one_line(failure)})"
            ) from None
    found = network.outputs(inputs)
    fits = wanted.shape == found.shape
    error = float((np.abs(wanted - found) / np.maximum(1.0, np.abs(wanted))).max(initial=0.0)) if fits else np.inf
    if not error <= reading.rounding:
        raise NetworkError(
            f"the network read from the {type(reading.estimator).__name__} is not the estimator: on {len(inputs)} samples they differ by"
            f" {error:.1e}, relatively (shapes {found.shape} and {wanted.shape}); was an attribute changed after `fit`?"
        )


def outputs_of(estimator: Any, table: Any) -> Array:
    """Return what the estimator makes of a table, one row per sample: probabilities, predictions, or transformed columns."""
    method = next(name for name in ("predict_proba", "predict", "transform") if hasattr(estimator, name))
    found = getattr(estimator, method)(table)
    dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found, dtype=np.float64)
    return np.asarray(dense, dtype=np.float64).reshape(len(dense), -1)


def sample_inputs(reading: EstimatorReading, generator: np.random.Generator, count: int) -> tuple[Any, Array]:
    """Return a table of random samples for the estimator, and the same samples as inputs of the network.

    A scaled column gets values of size 1; where there are probes, half of the values are one of them or a neighbour of it.
    """
    sources = reading.sources
    inputs = generator.normal(size=(count, len(sources)))
    number = {source: place for place, source in enumerate(sources)}
    for column in reading.columns:
        (factor, shift), place = column.lines[0], number[column.source]
        inputs[:, place] = (generator.normal(size=count) * 1.5 - shift) / (factor or 1.0)
    for source, probes in reading.probes.items():
        chosen = generator.choice(probes, count)
        single = chosen.astype(np.float32)
        near = [chosen, np.nextafter(chosen, -np.inf), np.nextafter(chosen, np.inf)]
        near += [np.nextafter(single, np.float32(end)).astype(np.float64) for end in (-np.inf, np.inf)]
        taken = np.array(near)[generator.integers(len(near), size=count), np.arange(count)]
        place = number[source]
        inputs[:, place] = np.where(generator.uniform(size=count) < 0.5, taken, inputs[:, place])
    cells: list[Any] = [inputs[:, number[feature, None]] if feature not in reading.codes else None for feature in range(reading.count)]
    for taken_off in reading.encoders:
        for place, feature in enumerate(taken_off.features):
            cells[feature] = generator.choice(taken_off.encoder.categories_[place], count)
        coded = taken_off.encoder.transform(
            _table(reading, cells, taken_off.features, named=hasattr(taken_off.encoder, "feature_names_in_"))
        )
        dense = coded.toarray() if hasattr(coded, "toarray") else np.asarray(coded)
        columns = [number[feature, code] for feature in taken_off.features for code in range(len(reading.codes[feature]))]
        inputs[:, columns] = dense
    return _table(reading, cells, tuple(range(reading.count)), named=bool(reading.names)), inputs


def _table(reading: EstimatorReading, cells: list[Any], features: tuple[int, ...], *, named: bool) -> Any:
    if named:
        return pd.DataFrame({reading.names[feature]: cells[feature] for feature in features})
    kinds = {np.asarray(cells[feature]).dtype.kind for feature in features}
    return np.stack([np.asarray(cells[feature], dtype=None if kinds <= set("fiub") else object) for feature in features], axis=1)
