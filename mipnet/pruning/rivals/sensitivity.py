"""Sensitivities of weights and features: what share of a pre-activation one weight contributes, at most, over some images.

For a weight w_ij from input j to output i, an image x and a patch p (one patch for a dense layer), with the weights split by sign::

    g_ij(x, p)  =  |w_ij| a_j(x, p) / |z_i(x, p)|     z_i = sum_k w_ik a_k over the weights w_ik of the sign of w_ij, bias left out
    s_ij        =  max over x of  reduce over p of  g_ij(x, p)       reduce = max or mean;  g = 0 where |z_i| <= machine epsilon

Where inputs are negative an image counts as two, ``a+`` and ``-a-``.  So 0 <= s_ij <= 1, and the g of one output, sign and patch
sum to 1.  After Baykal, Liebenwein, Gilitschenski, Feldman and Rus, "Sensitivity-Informed Provable Pruning of Neural Networks" (SIAM J.
Math. Data Sci. 4(1), 2022), as their published code computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Layer, Network
from mipnet.pruning.rivals.unit_weights import CHUNK, as_scores, check_gates, check_images, matrix, outgoing, patches, pieces, weight_nodes

BATCH = 64
EPS = torch.finfo(torch.float64).eps


def weight_sensitivities(network: Network, images: ArrayLike, reduce: str = "max") -> dict[str, Tensor]:
    """s_ij of every weight layer, by node, in the form of `mipnet.pruning.rivals.unit_weights.matrix`; ``reduce`` is ``max`` or ``mean``.

    Nodes of one module share its weights: each of them carries the larger value.
    """
    if reduce not in ("max", "mean"):
        raise InputError(f"`reduce` is `{reduce}`; expected `max` or `mean`")
    x = check_images(network, images)
    nodes = weight_nodes(network)
    found = {node.origin: torch.zeros_like(matrix(node.layer)) for node in nodes}
    for piece in pieces(len(x), BATCH):
        with torch.no_grad():
            values = network.values(x[piece])
            for node in nodes:
                largest = layer_sensitivity(node.layer, values[node.inputs[0]], reduce)
                found[node.origin] = torch.maximum(found[node.origin], largest)
    return {node.name: found[node.origin] for node in nodes}


def layer_sensitivity(layer: Layer, x: Tensor, reduce: str) -> Tensor:
    """s_ij of one layer on a batch of its inputs."""
    read, weight = patches(layer, x), matrix(layer)
    signed = [read] if bool((read >= 0).all()) else [read.clamp(min=0), (-read).clamp(min=0)]
    ratios = _largest_mean if reduce == "mean" else _largest
    found = torch.zeros_like(weight)
    for part in signed:
        for side in (weight.clamp(min=0), (-weight).clamp(min=0)):
            found = torch.maximum(found, side * ratios(part, _inverse(part, side)))
    return found


def _inverse(read: Tensor, side: Tensor) -> Tensor:
    """1 / z of shape ``(sample, patch, group, output)``, 0 where z vanishes; ``side`` holds the weights of one sign, made positive."""
    z = torch.einsum("npgj,goj->npgo", read, side)
    return torch.where(z > EPS, 1 / z.clamp(min=EPS), 0.0)


def _largest(read: Tensor, inverse: Tensor) -> Tensor:
    """The maximum over samples and patches of ``a_j / z_i``, shape ``(group, output, J)``."""
    a, z = read.flatten(0, 1), inverse.flatten(0, 1)
    found = torch.zeros(z.shape[1], z.shape[2], a.shape[2], dtype=a.dtype)
    for piece in pieces(len(a), CHUNK // found.numel()):
        found = torch.maximum(found, (a[piece, :, None, :] * z[piece, :, :, None]).amax(dim=0))
    return found


def _largest_mean(read: Tensor, inverse: Tensor) -> Tensor:
    """The maximum over samples of the mean over patches of ``a_j / z_i``, shape ``(group, output, J)``."""
    found = torch.zeros(inverse.shape[2], inverse.shape[3], read.shape[3], dtype=read.dtype)
    for piece in pieces(len(read), CHUNK // found.numel()):
        mean = torch.einsum("npgj,npgo->ngoj", read[piece], inverse[piece]) / read.shape[1]
        found = torch.maximum(found, mean.amax(dim=0))
    return found


def feature_sensitivities(network: Network, gates: Sequence[Gate], weights: Mapping[str, Tensor], combine: str = "max") -> xr.Dataset:
    """For each unit the ``max`` (as PFP) or ``sum`` of the sensitivities of its outgoing weights.

    The weights are those that read the unit, over outputs, kernel positions and, behind a flattening, all its positions.
    """
    check_gates(gates)
    if combine not in ("max", "sum"):
        raise InputError(f"`combine` is `{combine}`; expected `max` or `sum`")
    found = {gate.name: outgoing(network, gate, weights, combine) for gate in gates}
    return as_scores(gates, found, f"{combine} of outgoing sensitivities")
