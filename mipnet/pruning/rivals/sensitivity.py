"""Sensitivities of weights and features: the largest share that one weight contributes to a pre-activation, over some images.

For a weight w_ij from input j to output i, an image x and a patch p (one patch for a dense layer), with the weights split by sign::

    g_ij(x, p)  =  |w_ij| a_j(x, p) / |z_i(x, p)|     z_i = sum_k w_ik a_k over the weights w_ik of the sign of w_ij, bias left out
    s_ij        =  max over x of  reduce over p of  g_ij(x, p)       reduce = max or mean;  g = 0 where |z_i| <= machine epsilon

Where inputs are negative an image counts as two, ``a+`` and ``-a-``.  So 0 <= s_ij <= 1, and the g of one output, sign and patch
sum to 1.  After Baykal, Liebenwein, Gilitschenski, Feldman and Rus, "Sensitivity-Informed Provable Pruning of Neural Networks" (SIAM J.
Math. Data Sci. 4(1), 2022), as their published code computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Layer, Network
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates, check_images, images_at_once, slices
from mipnet.pruning.rivals.weight_matrices import TEMPORARY_NUMBERS_MAX, matrix, outgoing, patches, patches_bytes, weight_nodes

SENSITIVITY_IMAGES_PER_PASS = 64
PREACTIVATION_MIN = torch.finfo(torch.float64).eps
"""A part of a pre-activation that is not larger has no shares."""

BERNSTEIN_FACTOR = 3.0
"""The constant C of the sample complexity of SiPP and PFP."""

FAILURE_PROBABILITY = 1e-16
"""The probability delta with which the error bounds of SiPP and PFP may fail."""


def weight_sensitivities(network: Network, images: ArrayLike, reduce: str = "max") -> dict[str, Tensor]:
    """Return s_ij of every weight layer, by node, in the form of `weight_matrices.matrix`; ``reduce`` is ``max`` or ``mean``.

    Nodes of one module share its weights: each of them has the larger value.
    """
    if reduce not in ("max", "mean"):
        raise InputError(f"`reduce` is `{reduce}`; expected `max` or `mean`")
    x = check_images(network, images)
    nodes = weight_nodes(network)
    found = {node.origin: torch.zeros_like(matrix(node.layer)) for node in nodes}
    for few in slices(len(x), images_at_once(network, SENSITIVITY_IMAGES_PER_PASS, patches_bytes(network))):
        with torch.no_grad():
            values = network.values(x[few])
            for node in nodes:
                largest = layer_sensitivity(node.layer, values[node.inputs[0]], reduce)
                found[node.origin] = torch.maximum(found[node.origin], largest)
    return {node.name: found[node.origin] for node in nodes}


def layer_sensitivity(layer: Layer, x: Tensor, reduce: str) -> Tensor:
    """Return s_ij of one layer on a batch of its inputs."""
    read, weight = patches(layer, x), matrix(layer)
    signed = [read] if bool((read >= 0).all()) else [read.clamp(min=0), (-read).clamp(min=0)]
    ratios = _largest_mean if reduce == "mean" else _largest
    found = torch.zeros_like(weight)
    for part in signed:
        for side in (weight.clamp(min=0), (-weight).clamp(min=0)):
            found = torch.maximum(found, side * ratios(part, _inverse(part, side)))
    return found


def _inverse(read: Tensor, side: Tensor) -> Tensor:
    """Return 1 / z of shape ``(sample, patch, group, output)``, 0 where z vanishes; ``side`` holds the absolute weights of one sign."""
    z = torch.einsum("npgj,goj->npgo", read, side)
    return torch.where(z > PREACTIVATION_MIN, 1 / z.clamp(min=PREACTIVATION_MIN), 0.0)


def _largest(read: Tensor, inverse: Tensor) -> Tensor:
    """Return the maximum over samples and patches of ``a_j / z_i``, shape ``(group, output, J)``."""
    a, z = read.flatten(0, 1), inverse.flatten(0, 1)
    found = torch.zeros(z.shape[1], z.shape[2], a.shape[2], dtype=a.dtype)
    for few in slices(len(a), TEMPORARY_NUMBERS_MAX // found.numel()):
        found = torch.maximum(found, (a[few, :, None, :] * z[few, :, :, None]).amax(dim=0))
    return found


def _largest_mean(read: Tensor, inverse: Tensor) -> Tensor:
    """Return the maximum over samples of the mean over patches of ``a_j / z_i``, shape ``(group, output, J)``."""
    found = torch.zeros(inverse.shape[2], inverse.shape[3], read.shape[3], dtype=read.dtype)
    for few in slices(len(read), TEMPORARY_NUMBERS_MAX // found.numel()):
        mean = torch.einsum("npgj,npgo->ngoj", read[few], inverse[few]) / read.shape[1]
        found = torch.maximum(found, mean.amax(dim=0))
    return found


def feature_sensitivities(network: Network, gates: Sequence[Gate], weights: Mapping[str, Tensor], combine: str = "max") -> xr.Dataset:
    """Return, for each unit, the ``max`` (as in PFP) or ``sum`` of the sensitivities of its outgoing weights.

    These are the weights that read the unit, over outputs, kernel positions and, after a flattening, all its positions.
    """
    check_gates(gates)
    if combine not in ("max", "sum"):
        raise InputError(f"`combine` is `{combine}`; expected `max` or `sum`")
    found = {gate.name: outgoing(network, gate, weights, combine) for gate in gates}
    return as_scores(gates, found, f"{combine} of outgoing sensitivities")


def complexity(patches: int, kernel: int, delta: float) -> float:
    """Return ``2 C ln(8 (P+1) kappa / delta)``."""
    return 2 * BERNSTEIN_FACTOR * math.log(8 * (patches + 1) * kernel / delta)
