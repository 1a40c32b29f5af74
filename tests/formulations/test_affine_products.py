"""Products of a layer's weights with the values of its input, computed a few samples and rows at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import mipnet as mn
from mipnet import arrays
from mipnet.arrays import Csr
from mipnet.backend import Rows
from mipnet.formulations import affine
from mipnet.limits.deadline import NO_DEADLINE
from tests.clock import CountingDeadline


@pytest.mark.parametrize("at_once", [1, 12, 10**9])
@pytest.mark.parametrize("kind", ["own variables", "own scaled variables", "some own variables", "shared variables", "few variables"])
def test_the_product_is_that_of_the_kronecker_product(monkeypatch: pytest.MonkeyPatch, kind: str, at_once: int) -> None:
    g, samples, n_out, n_in = np.random.default_rng(0), 5, 3, 4
    monkeypatch.setattr(affine, "COEFFICIENTS_AT_ONCE", at_once)
    monkeypatch.setattr(affine, "ENTRIES_AT_ONCE", at_once)
    monkeypatch.setattr(affine, "PRODUCT_MULTIPLICATIONS_MAX", at_once)
    matrix = Csr(g.normal(size=(n_out, n_in)) * (g.random((n_out, n_in)) < 0.7))
    if kind == "few variables":
        terms = Csr(g.normal(size=(samples * n_in, 3)) * (g.random((samples * n_in, 3)) < 0.6))
    elif kind == "shared variables":
        terms = Csr(g.normal(size=(samples * n_in, 100)) * (g.random((samples * n_in, 100)) < 0.4))
    else:
        factors = np.ones(samples * n_in) if kind == "own variables" else g.normal(size=samples * n_in)
        terms = Csr((factors, g.permutation(100)[: samples * n_in], np.arange(samples * n_in + 1)), shape=(samples * n_in, 100))
        if kind == "some own variables":
            terms.data[g.random(samples * n_in) < 0.4] = 0.0
            terms.eliminate_zeros()
    clock = CountingDeadline()
    product = affine.per_sample(matrix, samples, terms, clock)
    assert clock.work.total() >= (samples if at_once == 1 else 1)
    assert np.allclose(product.toarray(), (sparse.kron(sparse.eye(samples), matrix) @ terms).toarray(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 5, 10**9])
def test_matrices_are_read_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Sums, largest terms, scaled rows and rows without small terms are those of dense arrays, empty rows included."""
    g = np.random.default_rng(1)
    monkeypatch.setattr(arrays, "ENTRIES_AT_ONCE", at_once)
    first, last = g.normal(size=(6, 5)) * (g.random((6, 5)) < 0.7), g.normal(size=(6, 8)) * (g.random((6, 8)) < 0.4)
    last[:, :5] = first[2] = first[5] = last[5] = 0.0
    total = affine.add_terms(Csr(first), Csr(last))
    assert total.has_sorted_indices
    assert np.array_equal(total.toarray(), last + np.pad(first, ((0, 0), (0, 3))))
    rows, sizes, factors = Rows(total, np.full(6, -1.0), np.full(6, np.inf)), g.uniform(1, 2, 8), g.uniform(1, 2, 6)
    dense = np.abs(total.toarray()) * sizes
    assert np.array_equal(rows.largest_terms(sizes), dense.max(axis=1))
    scaled = rows.scaled(sizes, factors)
    assert np.allclose(scaled.matrix.toarray(), total.toarray() * sizes * factors[:, None], rtol=1e-15)
    assert np.array_equal(scaled.lower, -factors)
    some = rows.without(0.5, np.zeros(8), sizes)
    small = (dense > 0) & ((dense < 0.5) | (np.abs(total.toarray()) <= 0.5))
    assert np.array_equal(some.matrix.toarray(), np.where(small, 0.0, total.toarray()))


def test_every_group_of_rows_looks_at_the_clock() -> None:
    clock, g = CountingDeadline(), np.random.default_rng(0)
    layers = [("fc1", mn.Dense(g.normal(size=(4, 3)))), ("relu1", mn.ReLU()), ("fc2", mn.Dense(g.normal(size=(1, 4))))]
    network = mn.Network.build((3,), layers)
    encoding = mn.encode(network, mn.LInf(np.zeros((1, 3)), 1.0), formulation={"relu": "hull"}, time_limit=clock)
    assert clock.work["write layer `relu1` into the model"] > len(encoding.blocks["relu1"].constraints) > 5
    assert all(block.deadline is NO_DEADLINE for block in encoding.blocks.values())
