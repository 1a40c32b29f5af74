"""Rivals: other ways to score units, each one a function ``(network, gates, images, labels, *, seed, **own) -> scores``.

Scores are Datasets with one variable a gate, along its dim; larger is more important.  `RIVALS` names them all and says how each one
ranks the units of different layers against each other (see `mipnet.pruning.smaller.ranking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import InputError
from mipnet.network.gates import Gate, way_to_site
from mipnet.network.graph import Network
from mipnet.pruning.rivals.gradients import fisher, snip, taylor
from mipnet.pruning.rivals.pfp import allocate, drawn_keys, pfp
from mipnet.pruning.rivals.sipp import sipp
from mipnet.pruning.rivals.torch_pruning import torch_pruning
from mipnet.pruning.rivals.unit_weights import as_scores, check_gates, check_images, matrix, norms_behind, outgoing, pieces, weight_nodes
from mipnet.pruning.smaller.ranking import Normalize, at_share, same_counts

BATCH = 256
RANKINGS = ("layers", "global")
Score = Callable[..., xr.Dataset]
"""``(network, gates, images, labels, *, seed=0, **own) -> scores``."""


def random(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Uniform numbers in [0, 1): the k best are k units drawn without replacement.  Images and labels are not used."""
    check_gates(gates)
    rng = np.random.default_rng(seed)
    return as_scores(gates, {gate.name: torch.as_tensor(rng.random(gate.units)) for gate in gates}, "random")


def magnitude(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, norm: int = 2) -> xr.Dataset:
    """The norm of a unit's incoming weights and bias: ``sqrt(sum_j w_kj^2 + b_k^2)``, or ``sum_j |w_kj| + |b_k|`` for ``norm=1``.

    Li, Kadav, Durdanovic, Samet and Graf, "Pruning Filters for Efficient ConvNets" (ICLR 2017), who use the L1 norm without bias.
    Batch norm behind the layer takes no part.  Images and labels are not used.
    """
    check_gates(gates)
    if norm not in (1, 2):
        raise InputError(f"the norm is {norm}; expected 1 or 2")
    found = {gate.name: _incoming(network, gate, norm) ** (1 / norm) for gate in gates}
    return as_scores(gates, found, f"magnitude (L{norm})")


def _incoming(network: Network, gate: Gate, norm: int) -> Tensor:
    """``sum |w|^norm`` over the incoming weights and the bias of each unit."""
    layer = network[gate.nodes[0]].layer
    total = (matrix(layer).abs() ** norm).sum(dim=2).reshape(-1)
    bias = layer.weights().get("bias")
    return total if bias is None else total + bias.abs() ** norm


def group(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """The L2 norm of all that leaves with a unit: incoming weights, bias, batch norm and outgoing weights.

    After Fang, Ma, Song, Mi and Wang, "DepGraph: Towards Any Structural Pruning" (CVPR 2023).  Reconstructed: torch-pruning averages
    over the members of a group where this is one norm over all of them; a batch norm counts with its factor
    ``gamma / sqrt(variance + eps)`` and its shift; units that an addition ties together are scored, and pruned, one
    by one.  Images and labels are not used.
    """
    check_gates(gates)
    squares = {node.name: matrix(node.layer) ** 2 for node in weight_nodes(network)}
    found = {}
    for gate in gates:
        norms = norms_behind(network, way_to_site(network, network[gate.nodes[0]]))
        own = _incoming(network, gate, 2) + sum(n.factor**2 + n.shift**2 for n in norms)
        found[gate.name] = (own + outgoing(network, gate, squares, "sum")).sqrt()
    return as_scores(gates, found, "group magnitude")


def activation(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """The mean absolute activation of a unit behind its activation function: over samples, positions and sites.

    One of the criteria of Molchanov et al. (ICLR 2017).  The labels are not used.
    """
    check_gates(gates)
    x = check_images(network, images)
    total = {gate.name: torch.zeros(gate.units, dtype=torch.float64) for gate in gates}
    for piece in pieces(len(x), BATCH):
        with torch.no_grad():
            values = network.values(x[piece])
        for gate in gates:
            means = [values[site].abs().flatten(2).mean(dim=2) if values[site].ndim > 2 else values[site].abs() for site in gate.sites]
            total[gate.name] += torch.stack(means).mean(dim=0).sum(dim=0) / len(x)
    return as_scores(gates, total, "mean activation")


@dataclass(frozen=True)
class Rival:
    """A rival: its ``score`` with ``options``, how it compares layers (``normalize``), one line ``about`` it and its ``source``.

    ``drawn`` says that the seed matters.  ``allocation`` is a kind of PFP, whose budgets replace the global
    ranking; the drawn kinds draw exactly as many distinct units as the budget of the layer.  ``needs`` is a package of others.
    """

    name: str
    score: Score
    about: str
    source: str
    normalize: Normalize = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = False
    allocation: str = ""
    needs: str = ""

    @property
    def installed(self) -> bool:
        """False if the package that it ``needs`` is missing."""
        return not self.needs or find_spec(self.needs.replace("-", "_")) is not None

    def check(self) -> None:
        """Raise `InputError` if the package that it needs is missing."""
        if not self.installed:
            raise InputError(f"the rival `{self.name}` needs `{self.needs}`, which is not installed: pip install mipnet[rivals]")

    def scores(
        self, network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, **own: Any
    ) -> xr.Dataset:
        """The scores of every gate; ``own`` goes to the rival."""
        self.check()
        return self.score(network, gates, images, labels, seed=seed, **{**self.options, **own})

    def prepared(
        self, network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, **own: Any
    ) -> xr.Dataset:
        """What `masks` starts from: the scores, or for those with an `allocation` the sensitivities behind them."""
        self.check()
        options = {} if self.allocation else self.options
        return self.score(network, gates, images, labels, seed=seed, **{**options, **own})

    def masks(
        self, network: Network, gates: Sequence[Gate], prepared: xr.Dataset, *, ranking: str, like: xr.Dataset, share: float, seed: int = 0
    ) -> xr.Dataset:
        """The masks by this rival: ``layers`` keeps as many units a layer as ``like``, ``global`` prunes ``share`` of the parameters."""
        if ranking not in RANKINGS:
            raise InputError(f"the ranking is `{ranking}`; expected one of {', '.join(RANKINGS)}")
        if not self.allocation:
            return same_counts(gates, prepared, like) if ranking == "layers" else at_share(network, gates, prepared, share, self.normalize)
        size = like if ranking == "layers" else allocate(network, gates, prepared, share).masks
        counts = {gate.name: int(size[gate.name].sum()) for gate in gates}
        return same_counts(gates, drawn_keys(prepared, self.allocation, counts, seed), size)


_SIPP, _PFP = "Baykal et al., SIAM J. Math. Data Sci. 2022", "Liebenwein et al., ICLR 2020"
_GROUP = "Fang et al., CVPR 2023"

RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("random", random, "units drawn without replacement", "the usual control", drawn=True),
        Rival("magnitude", magnitude, "L2 norm of incoming weights and bias", "Li et al., ICLR 2017", "mean"),
        Rival("activation", activation, "mean absolute activation", "Molchanov et al., ICLR 2017", "l2"),
        Rival("taylor", taylor, "mean absolute first-order change of the loss", "Molchanov et al., ICLR 2017", "l2"),
        Rival("taylor-2019", taylor, "squared first-order change", "Molchanov et al., CVPR 2019", options={"variant": "squared"}),
        Rival("fisher", fisher, "mean squared first-order change of the loss", "Theis et al., 2018"),
        Rival("snip", snip, "connection sensitivity of incoming weights, summed", "Lee et al., ICLR 2019"),
        Rival("sipp", sipp, "sensitivities of outgoing weights, summed", _SIPP, "mean"),
        Rival("sipp-random", sipp, "the same, of the weights that SiPPRand draws", _SIPP, "mean", options={"kind": "random"}, drawn=True),
        Rival("sipp-hybrid", sipp, "the same, of the weights that SiPPHybrid keeps", _SIPP, "mean", options={"kind": "hybrid"}, drawn=True),
        Rival("pfp", pfp, "largest sensitivity of outgoing weights", _PFP, allocation="deterministic"),
        Rival("pfp-random", pfp, "the same, drawn", _PFP, options={"kind": "random"}, drawn=True, allocation="random"),
        Rival("pfp-top", pfp, "the same, the surest kept and the rest drawn", _PFP, options={"kind": "top"}, drawn=True, allocation="top"),
        Rival("group", group, "L2 norm of all weights that leave with a unit", _GROUP, "mean"),
        Rival("torch-pruning", torch_pruning, "the group importance of that package, by its own code", _GROUP, needs="torch-pruning"),
    )
}
"""All rivals by name."""


def get_rival(name: str) -> Rival:
    """The rival of that name; raises `InputError` naming those there are."""
    if name not in RIVALS:
        raise InputError(f"no rival is called `{name}`; expected one of {', '.join(RIVALS)}")
    return RIVALS[name]


def usable() -> list[str]:
    """The names of the rivals whose packages are installed."""
    return [name for name, rival in RIVALS.items() if rival.installed]
