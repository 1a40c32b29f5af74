"""SiPP: provable pruning of single weights by their sensitivities, and scores of units made from them.

Baykal, Liebenwein, Gilitschenski, Feldman and Rus, "Sensitivity-Informed Provable Pruning of Neural Networks" (2022), in the form of
their published code.  A row f is an output unit and a sign of its weights; it has nnz_f weights with sensitivities s_j::

    S_f = sum_j s_j      p_j = s_j / S_f      A_f = S_f * 2 C ln(8 (P+1) kappa / delta)      C = 3, P patches, kappa kernel size
    err_f(m) = 1/2 [ A/(3m) + sqrt((A/(3m))^2 + 2A/m) ]

``deterministic``  keeps the weights with the largest sensitivities of all layers, up to the budget; sensitivities are means over patches
``random``         minimises ``sum_f err_f(m_f) / N_l`` (N_l rows in layer l) with ``sum m_f <= budget`` and ``0 <= m_f <= nnz_f``;
                   draws N_f weights with probabilities p, where ``sum_j 1 - (1 - p_j)^N_f = m_f``; a weight drawn c times is multiplied
                   by ``c / (N_f p_j)``; a row with m_f = nnz_f stays as it is
``hybrid``         the allocation of ``random``; a row keeps its m_f largest, as they are, if the error bound of that,
                   C times the sum of the sensitivities not kept, is not above err_f(m_f); otherwise it is drawn

Reconstructed: N_l as the number of rows, and the rounding: N_f at random to one of its two neighbours, so that the factors are unbiased;
m_f to the nearest.  The allocation is solved by bisection on its multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.arrays import Array
from mipnet.errors import InputError
from mipnet.layers import Conv2d
from mipnet.network.gates import Gate
from mipnet.network.graph import Network, Node, size
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import check_images
from mipnet.pruning.rivals.sensitivity import BERNSTEIN_FACTOR, FAILURE_PROBABILITY, complexity, feature_sensitivities, weight_sensitivities
from mipnet.pruning.rivals.weight_matrices import matrix, weight_nodes

SIPP_KINDS = ("deterministic", "random", "hybrid")
BISECTION_STEPS = 60
SIPP_PAPER = "Baykal et al., SIAM J. Math. Data Sci. 2022"


@rival("sipp", about="sensitivities of outgoing weights, summed", source=SIPP_PAPER, normalize="mean", order=8)
@rival(
    "sipp-random",
    about="the same, of the weights that SiPPRand draws",
    source=SIPP_PAPER,
    normalize="mean",
    options={"kind": "random"},
    drawn=True,
    order=9,
)
@rival(
    "sipp-hybrid",
    about="the same, of the weights that SiPPHybrid keeps",
    source=SIPP_PAPER,
    normalize="mean",
    options={"kind": "hybrid"},
    drawn=True,
    order=10,
)
def sipp(
    network: Network,
    gates: Sequence[Gate],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int = 0,
    kind: str = "deterministic",
    combine: str = "sum",
    keep: float = 0.5,
) -> xr.Dataset:
    """Return SiPP scores of units: the sensitivities of a unit's outgoing weights, summed (or the largest).  Labels are not used.

    ``deterministic`` combines the sensitivities of all its outgoing weights.  ``random`` and ``hybrid`` run the weight-level algorithm at
    the budget ``keep`` and combine ``s_ij * f_ij`` with f the factors of `sipp_factors` (0 for a removed weight, 1 for one that is
    kept, ``c / (N p)`` for one that is drawn): for ``random`` and ``sum`` an unbiased estimate of the sum over all of them.
    The paper prunes single weights; scores of units are this library's reading of it.
    """
    sensitivities = weight_sensitivities(network, images, "mean" if kind == "deterministic" else "max")
    if kind != "deterministic":
        factors = sipp_factors(network, images, keep, kind=kind, seed=seed)
        sensitivities = {name: s * factors[name] for name, s in sensitivities.items()}
    return feature_sensitivities(network, gates, sensitivities, combine)


def sipp_factors(
    network: Network, images: ArrayLike, keep: float, *, kind: str = "deterministic", seed: int = 0, delta: float = FAILURE_PROBABILITY
) -> dict[str, Tensor]:
    """Return the factors of all weights by node, in the form of `weight_matrices.matrix`: 0 where SiPP removes a weight.

    ``keep`` is the share of the weights (without biases) that stay; exactly for ``deterministic``, in expectation for the others.
    """
    if kind not in SIPP_KINDS or not 0 < keep <= 1 or not 0 < delta < 1:
        raise InputError(
            f"SiPP was asked for {kind=}, {keep=}, {delta=}; expected one of {', '.join(SIPP_KINDS)}, 0 < keep <= 1, 0 < delta < 1"
        )
    x = check_images(network, images)
    found = weight_sensitivities(network, x, "mean" if kind == "deterministic" else "max")
    owners = list({node.origin: node for node in weight_nodes(network)}.values())
    budget = keep * sum(matrix(node.layer).numel() for node in owners)
    if kind == "deterministic":
        own = _top([found[node.name] for node in owners], round(budget))
    else:
        own = _drawn([_rows(node, found[node.name], delta) for node in owners], budget, kind == "hybrid", np.random.default_rng(seed))
    by_origin = {node.origin: factor for node, factor in zip(owners, own, strict=True)}
    return {node.name: by_origin[node.origin] for node in weight_nodes(network)}


def with_factors(network: Network, factors: Mapping[str, Tensor]) -> Network:
    """Return the network with its weights multiplied by these factors: the pruned network, of the same shape."""

    def one(node: Node) -> Node:
        if node.name not in factors:
            return node
        weight = (matrix(node.layer) * factors[node.name]).reshape(node.layer.weights()["weight"].shape)
        return replace(node, layer=replace(node.layer, weight=weight))  # type: ignore[call-arg]

    return replace(network, nodes=tuple(one(node) for node in network.nodes))


def _top(sensitivities: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Return 1 for the ``budget`` largest of all, 0 for the others."""
    flat = torch.cat([s.reshape(-1) for s in sensitivities])
    kept = torch.zeros_like(flat)
    kept[torch.argsort(flat, descending=True, stable=True)[:budget]] = 1.0
    parts = torch.split(kept, [s.numel() for s in sensitivities])
    return [part.reshape(s.shape) for part, s in zip(parts, sensitivities, strict=True)]


@dataclass(frozen=True, eq=False)
class SignedRows:
    """The rows of one layer, one per output and sign: ``s`` of shape ``(2 outputs, J)``; ``A``, ``nnz`` and ``share`` = 1/N_l per row.

    ``s`` holds sensitivities; ``shape`` is that of the weight matrix.
    """

    s: Array
    A: Array
    nnz: Array
    share: Array
    shape: tuple[int, ...]


def _rows(node: Node, sensitivity: Tensor, delta: float) -> SignedRows:
    weight = matrix(node.layer)
    side = np.stack([(weight > 0).numpy(), (weight < 0).numpy()]).reshape(-1, weight.shape[2])
    s = np.where(side, np.tile(sensitivity.numpy().reshape(-1, weight.shape[2]), (2, 1)), 0.0)
    kernel = size(node.layer.window.kernel) if isinstance(node.layer, Conv2d) else 1
    A = s.sum(axis=1) * complexity(size(node.shape[1:]), kernel, delta)
    return SignedRows(s, A, (s > 0).sum(axis=1).astype(np.float64), np.full(len(s), 1.0 / len(s)), tuple(weight.shape))


def relative_error(m: Array, A: Array) -> Array:
    """Return err(m), the half-width of a Bernstein interval after m draws; infinite for m = 0 < A."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(A > 0, A / m, 0.0)
        found: Array = 0.5 * (t / 3 + np.sqrt((t / 3) ** 2 + 2 * t))
    return found


def _slope(m: Array, A: Array) -> Array:
    """Return ``-err'(m)``, positive and decreasing in m."""
    t = A / m
    root = np.sqrt((t / 3) ** 2 + 2 * t)
    found: Array = 0.5 * (1 / 3 + (t / 9 + 1) / root) * A / m**2
    return found


def allocate_rows(A: Array, nnz: Array, share: Array, budget: float) -> Array:
    """Return the m that minimises ``sum_f share_f err_f(m_f)`` with ``sum m <= budget``, ``0 <= m <= nnz``."""
    m, live = np.zeros_like(A), A > 0
    if budget >= nnz[live].sum():
        return np.where(live, nnz, 0.0)

    def at(log_price: Array) -> Array:
        """Return each m_f at which one more draw is worth its price."""
        worth = lambda t: np.log(share[live] * _slope(np.exp(t), A[live])) - log_price  # noqa: E731
        return np.minimum(np.exp(_root(worth, np.full(int(live.sum()), -40.0), np.log(nnz[live]))), nnz[live])

    excess = lambda p: np.array([at(p).sum() - budget])  # noqa: E731
    m[live] = at(_root(excess, np.array([-200.0]), np.array([200.0])))
    return m


def _root(decreasing: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Return where a decreasing function crosses 0, entry by entry, by bisection; an end where it does not."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        above = decreasing(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def _drawn(rows: Sequence[SignedRows], budget: float, hybrid: bool, rng: np.random.Generator) -> list[Tensor]:
    """Return the factors of every layer after allocation and drawing."""
    A, nnz, share = (np.concatenate([getattr(r, name) for r in rows]) for name in ("A", "nnz", "share"))
    m = np.split(allocate_rows(A, nnz, share, budget), np.cumsum([len(r.A) for r in rows])[:-1])
    return [_fold(_sample(r, counts, hybrid, rng), r.shape) for r, counts in zip(rows, m, strict=True)]


def _fold(factors: Array, shape: tuple[int, ...]) -> Tensor:
    """Return the two signs of each output as one matrix: a weight has one sign."""
    return torch.as_tensor(factors.reshape(2, *shape).sum(axis=0))


def _sample(rows: SignedRows, m: Array, hybrid: bool, rng: np.random.Generator) -> Array:
    s, total = rows.s, rows.s.sum(axis=1, keepdims=True)
    p = np.divide(s, total, out=np.zeros_like(s), where=total > 0)
    n = draws_for(p, m)
    whole = m >= rows.nnz - 1e-9
    live = (m > 0) & ~whole
    drawn = np.floor(n[live] + rng.random(int(live.sum()))).astype(np.int64)
    counts = np.zeros_like(s)
    counts[live] = rng.multinomial(drawn, p[live])
    expected = n[:, None] * p
    weighed = np.divide(counts, expected, out=np.zeros_like(s), where=(expected > 0) & live[:, None])
    factors: Array = np.where(whole[:, None], s > 0, weighed)
    if hybrid:
        rank = np.argsort(np.argsort(-s, axis=1, kind="stable"), axis=1)
        best = (rank < np.round(m)[:, None]) & (s > 0)
        better = BERNSTEIN_FACTOR * np.where(best, 0.0, s).sum(axis=1) <= relative_error(m, rows.A)
        factors = np.where(better[:, None], best, factors)
    return factors.astype(np.float64)


def draws_for(p: Array, m: Array) -> Array:
    """Return the number of draws N, a real number, with ``sum_j 1 - (1 - p_j)^N = m`` distinct ones expected, for each row of p."""
    log_q = np.log1p(-np.minimum(p, 1 - 1e-16))
    lacking = lambda t: m - (-np.expm1(np.exp(t)[:, None] * log_q)).sum(axis=1)  # noqa: E731
    n: Array = np.exp(_root(lacking, np.full(len(m), -40.0), np.full(len(m), 40.0)))
    return np.where(m > 0, n, 0.0)
