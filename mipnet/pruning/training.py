"""Plain, repeatable training: of a network, of a masked one (what is pruned stays 0), of a smaller one, while pruning.

Cross-entropy of the logits, no augmentation, the batches drawn with a seed.  The same call gives the same weights on the same
machine and versions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.errors import DataError, InputError, NetworkError
from mipnet.model.losses import check_labels
from mipnet.network.gates import find_gates
from mipnet.pruning.smaller.masks import Threshold
from mipnet.pruning.smaller.surgery import as_masks, prune
from mipnet.pruning.smaller.torch_masks import remove_masks, torch_masks
from mipnet.readers.torch import from_torch

Optimizer = Literal["rmsprop", "sgd", "adam"]
Seen = Callable[[int, float], None]


def train(
    module: nn.Module,
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    epochs: int = 30,
    optimizer: Optimizer = "rmsprop",
    lr: float = 1e-3,
    batch: int = 128,
    seed: int = 0,
    masks: xr.Dataset | None = None,
    on_epoch: Seen | None = None,
) -> list[float]:
    """Train a module in place and return the mean loss of each epoch; the module is left in eval mode.

    With ``masks`` (True stays) the units that are gone are zero before, during and after training, with their bias.  `sgd` has
    momentum 0.9.  ``on_epoch(epoch, loss)`` is called after each epoch, counted from 1.  Raises `NetworkError` if the loss is no
    longer finite.
    """
    x, y = _data(module, images, labels)
    if epochs < 0 or batch < 1 or not lr > 0:
        raise InputError(f"epochs is {epochs}, batch {batch}, lr {lr}; expected epochs >= 0, batch >= 1, lr > 0")
    if masks is not None:
        put_masks(module, x[:1], masks)
    step = _optimizer(optimizer, module, lr)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(seed)  # for dropout
            for epoch in range(1, epochs + 1):
                losses.append(_epoch(module.train(), step, x, y, _batches(len(x), batch, generator)))
                _seen(epoch, losses[-1], lr, on_epoch)
    finally:
        remove_masks(module).eval()
    return losses


def _seen(epoch: int, loss: float, lr: float, on_epoch: Seen | None) -> None:
    if not math.isfinite(loss):
        raise NetworkError(f"the loss is {loss} after epoch {epoch}; train with a smaller `lr` than {lr}")
    if on_epoch is not None:
        on_epoch(epoch, loss)


def put_masks(module: nn.Module, example_input: Tensor, masks: xr.Dataset) -> None:
    """Put masks on a module in the form of `torch.nn.utils.prune`; see `torch_masks`."""
    network = from_torch(module, example_input)
    gates = find_gates(network)
    given = as_masks(network, gates, masks)
    if any(kept.dtype != bool for kept in masks.values()):
        raise InputError("masks are numbers; expected booleans, True for units that stay: `make_masks` makes them of scores")
    torch_masks(module, network, gates, given)


def _optimizer(name: Optimizer, module: nn.Module, lr: float) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("the module has no parameter that can be trained (`requires_grad`)")
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    kinds: dict[str, Any] = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}
    if name not in kinds:
        raise InputError(f"no optimizer is called `{name}`; expected one of {', '.join(get_args(Optimizer))}")
    made: torch.optim.Optimizer = kinds[name](parameters, lr=lr)
    return made


def _data(module: nn.Module, images: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Images in the module's number type and labels, on its device."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    x = torch.as_tensor(images).to(like.device, like.dtype)
    if x.ndim < 2 or not len(x):
        raise DataError(f"the images have shape {tuple(x.shape)}; expected (samples, *shape of one sample), at least one sample")
    truth = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return x, torch.as_tensor(check_labels(truth, len(x), int(truth.max(initial=0)) + 1)).to(like.device)


def _batches(samples: int, batch: int, generator: torch.Generator) -> list[Tensor]:
    """The samples in a new order, in batches; a last one of a single sample (no batch norm takes it) joins the one before."""
    parts = list(torch.split(torch.randperm(samples, generator=generator), batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _epoch(module: nn.Module, step: torch.optim.Optimizer, x: Tensor, y: Tensor, batches: list[Tensor]) -> float:
    total = 0.0
    for index in batches:
        index = index.to(x.device)
        step.zero_grad()
        loss = F.cross_entropy(_logits(module, x[index], y), y[index])
        loss.backward()  # type: ignore[no-untyped-call]
        step.step()
        total += float(loss.detach()) * len(index)
    return total / len(x)


def _logits(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    out: Tensor = module(x)
    if out.ndim != 2 or out.shape[1] <= int(y.max()):
        raise DataError(f"the module's output has shape {tuple(out.shape)}; expected one logit for each of the classes 0 .. {int(y.max())}")
    return out


def evaluate(module: nn.Module, images: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, batch: int = 1024) -> tuple[float, float]:
    """Mean cross-entropy, and the share of images, in percent, whose largest logit is at their label; in eval mode."""
    x, y = _data(module, images, labels)
    training = module.training
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([_logits(module, part, y) for part in x.split(batch)])  # type: ignore[no-untyped-call]
    module.train(training)
    return float(F.cross_entropy(logits, y)), 100.0 * float((logits.argmax(dim=1) == y).double().mean())


def fine_tune(module: nn.Module, images: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, epochs: int = 1, **training: Any) -> nn.Module:
    """A trained copy of a module, with the arguments of `train`; the module itself is left as it is."""
    tuned = copy.deepcopy(module)
    train(tuned, images, labels, epochs=epochs, **training)
    return tuned


def prune_while_training(
    module: nn.Module,
    score: Callable[[nn.Module], xr.Dataset],
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    epochs: int,
    every: int,
    threshold: Threshold = 0.1,
    at_start: bool = False,
    until: int | None = None,
    seed: int = 0,
    **training: Any,
) -> nn.Module:
    """A smaller, trained copy: it trains ``every`` epochs, is scored by ``score(module)`` and made smaller, and trains on.

    It is pruned up to and including epoch ``until`` (the last epoch but one, if not given), and before the first with
    ``at_start`` (``until=0`` then: at initialisation only).  Each time ``threshold`` is about the network as it then is.
    Other arguments are those of `train`; an optimizer starts anew after pruning.
    """
    if every < 1 or epochs < 0:
        raise InputError(f"every is {every} and epochs {epochs}; expected every >= 1 and epochs >= 0")
    last = epochs - 1 if until is None else until
    cuts = [*([0] if at_start else []), *range(every, min(last, epochs) + 1, every)]
    small, done = copy.deepcopy(module), 0
    for epoch in sorted({*cuts, epochs}):
        train(small, images, labels, epochs=epoch - done, seed=seed + done, **training)
        done = epoch
        if epoch in cuts:
            small = prune(small, score(small), torch.as_tensor(images)[:1].double(), threshold=threshold)
    return small


def retrain(
    module: nn.Module,
    initial_state: Mapping[str, Tensor],
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    masks: xr.Dataset | None = None,
    **training: Any,
) -> nn.Module:
    """A copy of a module rewound to an initial state, masked and trained; arguments as those of `train`."""
    fresh = copy.deepcopy(module)
    try:
        fresh.load_state_dict(initial_state)
    except RuntimeError as error:
        raise NetworkError(f"the initial state is not one of this module: {str(error).splitlines()[-1].strip()}") from None
    train(fresh, images, labels, masks=masks, **training)
    return fresh
