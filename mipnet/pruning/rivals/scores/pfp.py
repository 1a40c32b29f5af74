"""PFP: provable filter pruning by feature sensitivities, with one error for all layers.

Liebenwein, Baykal, Lang, Feldman and Rus, "Provable Filter Pruning for Efficient Neural Networks" (ICLR 2020), in the form of their
published code.  The sensitivity s_j of unit j is the largest sensitivity of a weight that reads it (`mipnet.pruning.rivals.sensitivity`)::

    S = sum_j s_j      p_j = s_j / S      A = S * 2 C ln(8 (P+1) kappa / delta)
    m(eps) = max(1, ceil(3 (6 + 2 eps) A / eps^2))        draws for the relative error eps
    u(eps) = ceil(sum_j 1 - (1 - p_j)^m)                  distinct units expected among them

One eps for all layers gives each its budget: layers that are hard to compress keep more.

``deterministic``  (PFP, the default of the paper's code) keeps the u units with the largest s_j
``random``         (PFPRand) keeps the units drawn, unit j multiplied by ``c_j / (m p_j)``
``top``            (PFPTop) keeps units with ``p_j >= 1/m`` as they are, and draws from the others after renormalisation

Reconstructed: P and kappa are those of the layer that reads the unit, the positions of a flattened channel counting as kappa, and with
several such layers the largest counts; ``top`` draws m times less the units kept; parameters are counted as in
`mipnet.pruning.smaller.parameter_counts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.arrays import Array, Mask
from mipnet.errors import InputError
from mipnet.layers import Conv2d
from mipnet.network.gates import Gate
from mipnet.network.graph import Network, size
from mipnet.pruning.rivals.registry import Rival, check_ranking, register
from mipnet.pruning.rivals.sensitivity import FAILURE_PROBABILITY, complexity, feature_sensitivities, weight_sensitivities
from mipnet.pruning.rivals.weight_matrices import readers
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import checked_scores, same_counts

PFP_KINDS = ("deterministic", "random", "top")
PFP_PAPER = "Liebenwein et al., ICLR 2020"

PROBABILITY_MIN = 1e-300
"""A probability of 0 counts as this one in logarithms."""


def pfp(
    network: Network,
    gates: Sequence[Gate],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int = 0,
    kind: str = "deterministic",
    draws: float = 0.5,
) -> xr.Dataset:
    """Return feature sensitivities as scores of units.  Labels are not used.

    For ``random`` a score is ``log p_j`` plus Gumbel noise: the k best units are then k distinct ones drawn one after the other with
    probabilities p, as in multinomial drawing without repetitions.  For ``top``, units with ``p_j >= 1/m`` come first, with m the share
    ``draws`` of a layer's units.  `allocate` makes masks as the paper does.
    """
    if kind not in PFP_KINDS or not 0 < draws <= 1:
        raise InputError(f"PFP was asked for {kind=}, {draws=}; expected one of {', '.join(PFP_KINDS)} and 0 < draws <= 1")
    found = feature_sensitivities(network, gates, weight_sensitivities(network, images, "max"), "max")
    return drawn_keys(found, kind, {str(name): int(np.ceil(draws * s.size)) for name, s in found.items()}, seed)


def drawn_keys(sensitivities: xr.Dataset, kind: str, draws: Mapping[str, int], seed: int) -> xr.Dataset:
    """Return scores whose k best units are drawn by the sensitivities, as in `pfp`; ``draws`` is m for each gate (``top`` only)."""
    if kind == "deterministic":
        return sensitivities
    rng = np.random.default_rng(seed)

    def one(s: xr.DataArray) -> xr.DataArray:
        p = _probabilities(s.values)
        keys = np.log(np.maximum(p, PROBABILITY_MIN)) + rng.gumbel(size=len(p))
        sure = p >= 1 / max(1, draws[str(s.name)]) if kind == "top" else np.zeros(len(p), dtype=bool)
        return s.copy(data=np.where(sure, keys.max() + 1 + p, keys))

    return sensitivities.map(one, keep_attrs=True)


@dataclass(frozen=True, eq=False)
class Allocation:
    """``masks`` and, for the drawn kinds, the ``factors`` of the units kept (1 otherwise); ``eps`` is the relative error."""

    masks: xr.Dataset
    factors: xr.Dataset
    eps: float


def allocate(
    network: Network,
    gates: Sequence[Gate],
    sensitivities: xr.Dataset,
    share: float,
    *,
    kind: str = "deterministic",
    seed: int = 0,
    delta: float = FAILURE_PROBABILITY,
) -> Allocation:
    """Return the masks of PFP that prune at least ``share`` of the parameters, with the smallest such eps, from deterministic scores.

    The drawn kinds reach the share only on average.  Raises `InputError` if one unit per layer has too many parameters.
    """
    if kind not in PFP_KINDS or not 0 <= share < 1 or not 0 < delta < 1:
        raise InputError(
            f"PFP was asked for {kind=}, {share=}, {delta=}; expected one of {', '.join(PFP_KINDS)}, share in [0, 1), delta in (0, 1)"
        )
    sensitivities = checked_scores(gates, sensitivities)
    constants = [_constant(network, gate, delta) for gate in gates]
    eps = _smallest_eps(network, gates, sensitivities, share, constants, kind)
    rng = np.random.default_rng(seed)
    factors = xr.Dataset()
    for gate, (m, u) in zip(gates, _budgets(gates, sensitivities, eps, constants, kind), strict=True):
        s = sensitivities[gate.name].values
        factors[gate.name] = (gate.dim, _best(s, u) if kind == "deterministic" else _draw(s, m, kind == "top", rng))
    return Allocation(factors > 0, factors, eps)


def _smallest_eps(
    network: Network, gates: Sequence[Gate], sensitivities: xr.Dataset, share: float, constants: Sequence[float], kind: str
) -> float:
    def reached(log_eps: float) -> float:
        budgets = _budgets(gates, sensitivities, float(np.exp(log_eps)), constants, kind)
        kept = {g.name: (g.dim, _best(sensitivities[g.name].values, u) > 0) for g, (_, u) in zip(gates, budgets, strict=True)}
        return pruned_share(network, gates, xr.Dataset(kept))

    low, high = -20.0, 60.0
    if (largest := reached(high)) < share:
        raise InputError(f"a share of {share:g} cannot be pruned: with one unit per layer it is {largest:.4f}")
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= share else (middle, high)
    return float(np.exp(high))


def _budgets(
    gates: Sequence[Gate], sensitivities: xr.Dataset, eps: float, constants: Sequence[float], kind: str
) -> list[tuple[float, int]]:
    """Return ``(m, u)`` of each gate for one eps."""
    return [_budget(sensitivities[gate.name].values, eps, constant, kind) for gate, constant in zip(gates, constants, strict=True)]


def _budget(s: Array, eps: float, constant: float, kind: str) -> tuple[float, int]:
    m = max(1.0, float(np.ceil(3 * (6 + 2 * eps) * s.sum() * constant / eps**2)))
    sure, rest, left = _draws(s, m, kind == "top")
    distinct = sure.sum() - np.expm1(left * np.log1p(-np.minimum(rest, 1 - 1e-16))).sum()
    return m, min(max(1, int(np.ceil(distinct - 1e-9))), len(s))


class Draws(NamedTuple):
    """Which units are kept without drawing, the probabilities of the others, and the number of draws left for them."""

    sure: Mask
    rest: Array
    left: float


def _draws(s: Array, m: float, top: bool) -> Draws:
    """Return how ``m`` draws are used; the kind ``top`` keeps units of large probability without drawing."""
    p = _probabilities(s)
    sure = p >= 1 / m if top else np.zeros(len(p), dtype=bool)
    rest = np.where(sure, 0.0, p)
    total, left = float(rest.sum()), max(0.0, m - float(sure.sum()))
    return Draws(sure, rest / total, left) if total > 0 and left >= 1 else Draws(sure, np.zeros(len(p)), 0.0)


def _constant(network: Network, gate: Gate, delta: float) -> float:
    """Return ``A / S``, the largest over the layers that read the gate."""
    found = []
    for name, member in readers(network, gate).items():
        layer = network[name].layer
        kernel = size(layer.window.kernel) if isinstance(layer, Conv2d) else max(1, int(member.sum(dim=1).max()))
        found.append(complexity(size(network[name].shape[1:]), kernel, delta))
    return max(found)


def _probabilities(s: Array) -> Array:
    total = s.sum()
    return s / total if total > 0 else np.full(len(s), 1.0 / len(s))


def _best(s: Array, u: int) -> Array:
    kept = np.zeros(len(s))
    kept[np.argsort(-s, kind="stable")[:u]] = 1.0
    return kept


def _draw(s: Array, m: float, top: bool, rng: np.random.Generator) -> Array:
    """Return the factors of the units after m draws: c / (m p), or 1 for units that ``top`` keeps without drawing."""
    sure, rest, left = _draws(s, m, top)
    if left < 1:
        return sure.astype(np.float64)
    counts = rng.multinomial(int(min(left, 2**62)), rest)
    return np.where(sure, 1.0, np.divide(counts, left * rest, out=np.zeros(len(s)), where=rest > 0))


@dataclass(frozen=True)
class PfpRival(Rival):
    """PFP as a rival: one error for all layers takes the place of the global ranking.

    The drawn kinds draw exactly as many distinct units as the budget of a layer.
    """

    def prepared(
        self,
        network: Network,
        gates: Sequence[Gate],
        images: ArrayLike,
        labels: ArrayLike,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Return the sensitivities."""
        return self.scores(network, gates, images, labels, seed=seed, options={"kind": "deterministic", **(options or {})})

    def masks(
        self, network: Network, gates: Sequence[Gate], prepared: xr.Dataset, *, ranking: str, like: xr.Dataset, share: float, seed: int = 0
    ) -> xr.Dataset:
        """Return the masks, with the layer counts of ``like`` or with those of the smallest eps that prunes ``share``."""
        check_ranking(ranking)
        sizes = like if ranking == "layers" else allocate(network, gates, prepared, share).masks
        counts = {gate.name: int(sizes[gate.name].sum()) for gate in gates}
        kind = str(self.options.get("kind", "deterministic"))
        return same_counts(gates, drawn_keys(prepared, kind, counts, seed), sizes)


register(PfpRival("pfp", pfp, "largest sensitivity of outgoing weights", PFP_PAPER, order=11))
register(PfpRival("pfp-random", pfp, "the same, drawn", PFP_PAPER, options={"kind": "random"}, drawn=True, order=12))
register(PfpRival("pfp-top", pfp, "the same, the surest kept and the rest drawn", PFP_PAPER, options={"kind": "top"}, drawn=True, order=13))
