"""First-order Taylor scores: the change of the loss if a unit were masked, to first order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import InputError, check_choice
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.gradients import gate_gradients
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores

TAYLOR_VARIANTS = ("mean-abs", "abs-mean", "squared")


@rival("taylor", about="mean absolute first-order change of the loss", source="Molchanov et al., ICLR 2017", normalize="l2", order=4)
@rival("taylor-2019", about="squared first-order change", source="Molchanov et al., CVPR 2019", options={"variant": "squared"}, order=5)
def taylor(
    network: Network,
    gates: Sequence[Gate],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int = 0,
    variant: str = "mean-abs",
    batch: int = 32,
) -> xr.Dataset:
    """Return the first-order change of the loss if a unit were masked.

    ``mean-abs`` (default)  ``mean_n |g[n, k]|``, with l2-normalised layers the criterion of Molchanov et al., "Pruning Convolutional
                            Neural Networks for Resource Efficient Inference" (ICLR 2017): their mean over positions in place of
                            our sum is one constant per layer, which the normalisation cancels
    ``abs-mean``            ``|mean_n g[n, k]|``, where samples may cancel: the first-order change of the mean loss
    ``squared``             the mean over minibatches of ``(mean_n g[n, k])^2``: the gate form (Taylor-FO-BN) of Molchanov et al.,
                            "Importance Estimation for Neural Network Pruning" (CVPR 2019); ``batch`` is the size of a minibatch
    """
    check_choice("the Taylor variant", variant, TAYLOR_VARIANTS)
    if batch < 1:
        raise InputError(f"`batch` is {batch}; expected at least 1")
    found = gate_gradients(network, gates, images, labels)
    reduce: dict[str, Callable[[Tensor], Tensor]] = {
        "mean-abs": lambda g: g.abs().mean(dim=0),
        "abs-mean": lambda g: g.mean(dim=0).abs(),
        "squared": lambda g: torch.stack([part.mean(dim=0) ** 2 for part in torch.split(g, batch)]).mean(dim=0),
    }
    return as_scores(gates, {name: reduce[variant](g) for name, g in found.items()}, f"first-order Taylor ({variant})")
