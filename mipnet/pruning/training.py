"""Plain, repeatable training: of a network, of a masked network (pruned units stay 0), and of a smaller network.

Cross-entropy of the logits (also of a module that ends in a softmax), no augmentation, the batches drawn with a seed.  The same call gives
the same weights on the same machine and versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mipnet.errors import DataError, InputError, NetworkError, check_choice, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.model.losses import check_labels
from mipnet.network.gates import find_gates
from mipnet.network.given_arrays import numbers
from mipnet.network.labelled_samples import align_samples
from mipnet.network.pass_cost import count_in_time
from mipnet.pruning.smaller.surgery import as_masks
from mipnet.pruning.smaller.torch_masks import remove_masks, torch_masks
from mipnet.readers.torch import from_torch
from mipnet.readers.torch_copy import copied

Optimizer = Literal["rmsprop", "sgd", "adam"]
OnEpoch = Callable[[int, float], None]


@suggest_keywords
@dataclass(frozen=True)
class TrainingSettings:
    """How to train a module on cross-entropy.

    Parameters
    ----------
    epochs
        Passes over the images.
    optimizer
        ``"rmsprop"``, ``"adam"``, or ``"sgd"`` with momentum 0.9.
    lr
        The step size.
    batch
        Images per step.
    seed
        Determines the order of the batches, and dropout.
    on_epoch
        Called as ``on_epoch(epoch, loss)`` after each epoch, counted from 1.
    time_limit
        Seconds of each training, None for no limit.  At its end the module keeps the weights that it has, and the epoch that was begun has
        no loss.
    """

    epochs: int = 30
    optimizer: Optimizer = "rmsprop"
    lr: float = 1e-3
    batch: int = 128
    seed: int = 0
    on_epoch: OnEpoch | None = None
    time_limit: TimeLimit = None

    def __post_init__(self) -> None:
        Deadline.after(self.time_limit)
        check_choice("the optimizer", self.optimizer, get_args(Optimizer))

    @suggest_keywords
    def changed(self, *, epochs: int | None = None, lr: float | None = None, seed: int | None = None) -> TrainingSettings:
        """Return these settings with the values that are given."""
        given = {name: value for name, value in (("epochs", epochs), ("lr", lr), ("seed", seed)) if value is not None}
        return replace(self, **given)  # type: ignore[arg-type]


PROBABILITY_SUM_TOLERANCE = 1e-4
"""Outputs of at least 0 whose sum differs from 1 by at most this, for every image of a batch, are probabilities."""

TRAINING_DEFAULTS = TrainingSettings()
FINE_TUNING_DEFAULTS = TrainingSettings(epochs=1)

MOVED_TO_TRAINING_SETTINGS = {name: f"write `settings=mn.TrainingSettings({name}=...)`" for name in ("optimizer", "batch", "on_epoch")}
"""What to write instead of arguments that are now fields of `TrainingSettings`; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_TO_TRAINING_SETTINGS)
@align_samples
def train(
    module: nn.Module,
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    masks: xr.Dataset | None = None,
    settings: TrainingSettings = TRAINING_DEFAULTS,
) -> list[float]:
    """Train a module in place and return the mean loss of each epoch; the module is left in eval mode.

    Parameters
    ----------
    epochs, lr, seed
        In place of those of ``settings``: 30 epochs, a step size of 0.001 and seed 0, unless it says otherwise.
    masks
        One boolean array per gate, True for units that stay; the others are zero before, during and after training, with their bias.

    Raises `NetworkError` if the loss is no longer finite.
    """
    how = settings.changed(epochs=epochs, lr=lr, seed=seed)
    deadline = Deadline.after(how.time_limit)
    x, y = training_data(module, images, labels)
    if masks is not None:
        put_masks(module, x[:1], masks)
    step = _optimizer(how, module)
    generator = torch.Generator().manual_seed(how.seed)
    losses = []
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(how.seed)  # for dropout
            for epoch in range(1, how.epochs + 1):
                loss = _epoch(module.train(), step, x, y, _batches(len(x), how.batch, generator), deadline)
                if loss is None:
                    break
                losses.append(loss)
                _report(epoch, loss, how)
    finally:
        (module if masks is None else remove_masks(module)).eval()
    return losses


def _report(epoch: int, loss: float, how: TrainingSettings) -> None:
    if not math.isfinite(loss):
        raise NetworkError(f"the loss is {loss} after epoch {epoch}; train with a smaller `lr` than {how.lr}")
    if how.on_epoch is not None:
        how.on_epoch(epoch, loss)


def put_masks(module: nn.Module, example_input: Tensor, masks: xr.Dataset) -> None:
    """Put masks on a module in the form of `torch.nn.utils.prune`; see `mipnet.pruning.smaller.torch_masks`."""
    network = from_torch(module, example_input)
    gates = find_gates(network)
    given = as_masks(network, gates, masks)
    if any(kept.dtype != bool for kept in masks.values()):
        raise InputError("masks are numbers; expected booleans, True for units that stay: `make_masks` makes them from scores")
    torch_masks(module, network, gates, given)


def _optimizer(how: TrainingSettings, module: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("the module has no parameter that can be trained (`requires_grad`)")
    if how.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=how.lr, momentum=0.9)
    return (torch.optim.RMSprop if how.optimizer == "rmsprop" else torch.optim.Adam)(parameters, lr=how.lr)


def training_data(module: nn.Module, images: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Return images in the module's number type, and labels, on its device."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    given = images if isinstance(images, Tensor) else torch.from_numpy(np.require(numbers(images, "the array of images"), requirements="W"))
    x = given.to(like.device, like.dtype)
    if x.ndim < 2 or not len(x):
        raise DataError(f"the images have shape {tuple(x.shape)}; expected (samples, *shape of one sample), at least one sample")
    truth = numbers(labels, "the array of labels")
    classes = int(truth.max(initial=0)) + 1 if truth.dtype.kind in "iu" else 0
    return x, torch.as_tensor(check_labels(truth, len(x), classes)).to(like.device)


def _batches(samples: int, batch: int, generator: torch.Generator) -> list[Tensor]:
    """Return the samples in a random order, in batches; a last batch of one sample, which batch norm cannot take, joins the one before."""
    parts = list(torch.split(torch.randperm(samples, generator=generator), batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _epoch(module: nn.Module, step: torch.optim.Optimizer, x: Tensor, y: Tensor, batches: list[Tensor], deadline: Deadline) -> float | None:
    """Train on each batch, and return the mean loss; None if the time ends before."""
    total = 0.0
    for index in batches:
        if deadline.passed:
            return None
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
    return log_probabilities(out)


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return the logarithms of outputs ``(samples, classes)`` if they are probabilities, as of a module that ends in a softmax.

    Other outputs are returned as they are; `torch.nn.functional.cross_entropy` takes both, and logits, for the same loss.
    """
    found = outputs.detach()
    shares = bool((found >= 0).all()) and bool(((found.sum(dim=1) - 1).abs() <= PROBABILITY_SUM_TOLERANCE).all())
    return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log() if shares else outputs


def _images_at_once(module: nn.Module, x: Tensor) -> int:
    """Return how many images are passed at once so that the clock is asked often enough: few if the module is large."""
    with FlopCounterMode(display=False) as counter:
        module(x)
    return count_in_time(counter.get_total_flops() // 2)


@suggest_keywords
@align_samples
def evaluate(
    module: nn.Module, images: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, batch: int = 1024, time_limit: TimeLimit = None
) -> tuple[float, float]:
    """Return the mean cross-entropy, and the share of images in percent whose largest logit is at their label, in eval mode.

    Raises `TimeLimitReached` if they are not known after ``time_limit`` seconds, None for no limit.
    """
    deadline, (x, y) = Deadline.after(time_limit), training_data(module, images, labels)
    training, parts = module.training, list[Tensor]()
    module.eval()
    try:
        with torch.inference_mode():
            for part in torch.split(x, min(batch, _images_at_once(module, x[:1]))):
                deadline.check("run the module on all images")
                parts.append(_logits(module, part, y))
    finally:
        module.train(training)
    logits = torch.cat(parts)
    return float(F.cross_entropy(logits, y)), 100.0 * float((logits.argmax(dim=1) == y).double().mean())


@suggest_keywords(moved=MOVED_TO_TRAINING_SETTINGS)
@align_samples
def fine_tune(
    module: nn.Module,
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    masks: xr.Dataset | None = None,
    settings: TrainingSettings = FINE_TUNING_DEFAULTS,
) -> nn.Module:
    """Return a trained copy of a module, by default after one epoch; the parameters are those of `train`."""
    tuned = copied(module)
    train(tuned, images, labels, masks=masks, settings=settings.changed(epochs=epochs, lr=lr, seed=seed))
    return tuned


@suggest_keywords
@align_samples
def retrain(
    module: nn.Module,
    initial_state: Mapping[str, Tensor],
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    masks: xr.Dataset | None = None,
    settings: TrainingSettings = TRAINING_DEFAULTS,
) -> nn.Module:
    """Return a copy of a module, reset to an initial state, masked and trained; the parameters are those of `train`."""
    fresh = copied(module)
    try:
        fresh.load_state_dict(initial_state)
    except RuntimeError as error:
        raise NetworkError(f"the initial state is not one of this module: {str(error).splitlines()[-1].strip()}") from None
    train(fresh, images, labels, masks=masks, settings=settings.changed(epochs=epochs, seed=seed))
    return fresh
