"""Products of a layer's weights with the values of its input, computed a few samples and rows at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mipnet.arrays import Csr
from mipnet.formulations import affine


@pytest.mark.parametrize("at_once", [1, 12, 10**9])
@pytest.mark.parametrize("kind", ["own variables", "own scaled variables", "shared variables"])
def test_the_product_is_that_of_the_kronecker_product(monkeypatch: pytest.MonkeyPatch, kind: str, at_once: int) -> None:
    g, samples, n_out, n_in = np.random.default_rng(0), 5, 3, 4
    monkeypatch.setattr(affine, "COEFFICIENTS_AT_ONCE", at_once)
    monkeypatch.setattr(affine, "PRODUCT_MULTIPLICATIONS_MAX", at_once)
    matrix = Csr(g.normal(size=(n_out, n_in)) * (g.random((n_out, n_in)) < 0.7))
    if kind == "shared variables":
        terms = Csr(g.normal(size=(samples * n_in, 100)) * (g.random((samples * n_in, 100)) < 0.4))
    else:
        factors = np.ones(samples * n_in) if kind == "own variables" else g.normal(size=samples * n_in)
        terms = Csr((factors, g.permutation(100)[: samples * n_in], np.arange(samples * n_in + 1)), shape=(samples * n_in, 100))
    product = affine.per_sample(matrix, samples, terms)
    assert np.allclose(product.toarray(), (sparse.kron(sparse.eye(samples), matrix) @ terms).toarray(), rtol=0, atol=1e-12)
