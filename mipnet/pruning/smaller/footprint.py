"""The cost of a module: parameters, multiply-adds of one sample, measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.errors import InputError, suggest_keywords
from mipnet.layers import AxisDense, Conv2d, Conv3d, ConvTranspose2d, Dense
from mipnet.network.graph import Network, size
from mipnet.readers.torch import from_torch, quiet
from mipnet.readers.torch_copy import copied


@dataclass(frozen=True)
class Footprint:
    """The number of ``parameters`` of a module, and the ``multiply_adds`` of its dense and convolution layers for one sample.

    ``seconds`` is the median time for one sample, ``batch_seconds`` that for ``batch`` samples at once, on one thread.
    """

    parameters: int
    multiply_adds: int
    seconds: float
    batch: int
    batch_seconds: float


@suggest_keywords
def measure(module: nn.Module, example_input: ArrayLike | Tensor, *, batch: int = 128, repeats: int = 20) -> Footprint:
    """Return the footprint of a module in eval mode, on its device and in its number type; inputs have the shape of ``example_input``."""
    if batch < 1 or repeats < 1:
        raise InputError(f"batch is {batch} and repeats {repeats}; expected at least 1")
    network = from_torch(module, example_input)
    parameters = {id(p): p.numel() for p in module.parameters()}
    ours = copied(module).eval().requires_grad_(False)
    like = next((p for p in ours.parameters() if p.is_floating_point()), torch.zeros(0))
    with _one_thread(), torch.inference_mode(), quiet():
        times = [_median(ours, torch.zeros(n, *network.input_shape).to(like), repeats) for n in (1, batch)]
    return Footprint(sum(parameters.values()), multiply_adds(network), times[0], batch, times[1])


def multiply_adds(network: Network) -> int:
    """Return the multiplications of dense and convolution layers for one sample; a module used twice counts twice."""
    total = 0
    for node in network.nodes:
        if isinstance(node.layer, Dense):
            total += node.layer.weight.numel()
        elif isinstance(node.layer, Conv2d | Conv3d | AxisDense):
            total += size(node.shape) * node.layer.weight[0].numel()
        elif isinstance(node.layer, ConvTranspose2d):
            total += size(network.shape_of(node.inputs[0])) * node.layer.weight[0].numel()
    return total


def _median(module: nn.Module, x: Tensor, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):  # the first two are warm-up
        _wait(x)
        start = time.perf_counter()
        module(x)
        _wait(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
