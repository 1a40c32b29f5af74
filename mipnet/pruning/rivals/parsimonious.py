"""Parsimonious learning: the weights are learned together with the probability of each unit to exist; most end at 0 or 1.

After Guenter and Sideris, "Robust Learning of Parsimonious Deep Neural Networks" (arXiv 2205.04650).  The equations below are
reconstructed from the paper's abstract and opening, and checked numerically, but not against its full text.  Unit i is multiplied by
``xi_i ~ Bernoulli(theta_i)``, with prior ``Bernoulli(pi_i)`` and a flattening hyper-prior on pi_i::

    p(pi | g)  =  (g-1) / ln(g) / (1 + (g-1) pi)          g > 0, g != 1
    min over pi of  KL(Ber(theta) || Ber(pi)) - log p(pi)  =  theta ln(g) + constant         at pi* = theta / (theta + g (1-theta))
    L(W, theta)  =  E_xi[C(W, xi)]  +  sum_i ln(g) theta_i  +  (N decay / 2) ||W||^2          theta in [0, 1]

C is the cross-entropy summed over the N images.  E[C] is linear in each theta_i, so for fixed weights some minimiser has all of them
at 0 or 1; a unit stays iff the cross-entropy that it saves exceeds ln(g).  One step on a minibatch, xi drawn anew for every image::

    W      <-  one step of Adam on  mean C(W, xi) + (decay / 2) ||W||^2
    theta  <-  clip(theta - step (dC + ln(g) / N), 0, 1)

    dC     =   mean_n d C_n / d xi_ni          to first order, for E[C | xi_i = 1] - E[C | xi_i = 0]

A theta that reaches 0 stays at 0: the unit is removed, and its weights decay.  The best unit of a layer always stays.  The slopes at
xi = 0 are steeper than those at xi = 1, so to first order the theta of a unit that is worth its price converges to a little below 1 (about
0.95 in trials).  The exact L is linear in each theta, and its minimum is at an end of the interval.  So in the last epochs (``settle``)
thetas above 1/2 are set to 1 and the others to 0, and the weights of the remaining network are trained on.
Not from the paper: Adam, the freeze at 0, the warm-up (epochs before theta moves), the settling, the mean over images and the defaults.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.arrays import Array
from mipnet.errors import InputError, TimeLimitReached, described, suggest_keywords
from mipnet.limits.array_dataset import array_dataset, dataset_arrays
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.kept_parts import KeptParts, kept_parts
from mipnet.network.gates import Gate, find_gates, path_to_site
from mipnet.network.given_arrays import numbers
from mipnet.network.graph import Network
from mipnet.network.labelled_samples import align_samples
from mipnet.pruning.rivals.score_arrays import check_classes, check_images
from mipnet.pruning.rivals.unit_switches import UnitSwitches
from mipnet.pruning.training import log_probabilities
from mipnet.readers.torch import from_torch
from mipnet.readers.torch_copy import copied

LAST_EPOCH = "last epoch"
"""The label of the part that is kept."""


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"`{name}` is {value}; expected a positive number")


@suggest_keywords
@dataclass(frozen=True)
class ParsimoniousSettings:
    """The settings of parsimonious learning.

    Parameters
    ----------
    theta
        The probability with which every unit exists at the start.
    step
        The size of the steps of theta.
    warmup
        The number of epochs before theta moves.
    settle
        The last share of the epochs, in which every theta is fixed at 0 or 1.
    weight_decay
        The factor ``decay`` of ``(decay / 2) ||W||^2``.
    batch
        Images per step.
    time_limit
        Seconds of the whole call, None for no limit.
    """

    theta: float = 0.9
    step: float = 3.0
    warmup: int = 5
    settle: float = 0.25
    weight_decay: float = 1e-4
    batch: int = 64
    time_limit: TimeLimit = None

    def __post_init__(self) -> None:
        Deadline.after(self.time_limit)
        _check_positive(batch=self.batch, step=self.step)
        if not 0 < self.theta <= 1 or not 0 <= self.settle <= 1 or not self.weight_decay >= 0 or not self.warmup >= 0:
            given = f"theta={self.theta}, settle={self.settle}, weight_decay={self.weight_decay}, warmup={self.warmup}"
            raise InputError(f"{given}; expected 0 < theta <= 1, 0 <= settle <= 1, no negative number")


class Learned(NamedTuple):
    """The trained ``module`` in eval mode, with zeros in the removed units; the ``masks`` of its gates; the ``history`` by epoch.

    ``history`` holds ``loss`` (the mean cross-entropy with units drawn), ``undecided`` (the share of thetas that are neither 0 nor 1), and
    the thetas of each gate as ``theta_<gate>``; its attributes are the number of ``epochs`` that were asked for, and whether Ctrl-C
    ``interrupted`` or the time limit ``stopped`` them.
    """

    module: nn.Module
    masks: xr.Dataset
    history: xr.Dataset


def flattened(theta: ArrayLike, pi: ArrayLike, log_g: float) -> Array:
    """Return ``KL(Ber(theta) || Ber(pi)) - log p(pi | g)`` for thetas and pis in (0, 1)."""
    t, p, g = np.asarray(theta, dtype=np.float64), np.asarray(pi, dtype=np.float64), float(np.exp(log_g))
    divergence = t * np.log(t / p) + (1 - t) * np.log((1 - t) / (1 - p))
    found: Array = divergence - np.log((g - 1) / log_g / (1 + (g - 1) * p))
    return found


@suggest_keywords
@align_samples
def learn(
    module: nn.Module | Callable[[], nn.Module],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    log_g: float | Mapping[str, float] = 3.0,
    epochs: int = 60,
    lr: float = 2e-3,
    seed: int = 0,
    settings: ParsimoniousSettings = ParsimoniousSettings(),
) -> Learned:
    """Train a copy of a module and prune it at the same time.

    Parameters
    ----------
    module
        The module, which is not changed, or a function that returns a new one.
    log_g
        ln(g), for all layers or by gate: the cross-entropy, summed over the images, that a unit must save.  A larger number prunes more.
    lr
        The step size of Adam, for the weights.

    The module is trained on the CPU.  Raises `InputError` for wrong numbers, `UnsupportedError` if units cannot be switched off from
    outside, as when an activation is a function in ``forward`` and not a module.

    Ctrl-C or the time limit ends the training with a warning: the module and the masks are those so far, the history has the epochs that
    were finished.  Before the end of the first epoch it raises KeyboardInterrupt or `TimeLimitReached`.  Inside `mipnet.keep_parts` the
    state after each epoch is kept.
    """
    deadline = Deadline.after(settings.time_limit)
    _check_positive(epochs=epochs, lr=lr)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ours = copied(module) if isinstance(module, nn.Module) else module()
        if not isinstance(ours, nn.Module):
            raise InputError(f"`learn` was given a function of {described(ours)} as `module`; expected one of a torch.nn.Module")
        given = numbers(images, "the array of images")
        if not given.ndim:
            raise InputError(f"`learn` was given {described(images)} as `images`; expected an array of shape (samples, *input shape)")
        x = torch.as_tensor(given).to(next(ours.parameters()).dtype)
        network = from_torch(ours, x[:1], deadline)
        check_images(network, x)
        gates = find_gates(network)
        prices = _prices(gates, log_g)
        switches = UnitSwitches(ours, network, gates, settings.theta, prices)
        with switches:
            switches.check(x[:8])
            asked = replace(settings, time_limit=None)
            y, numbers_given = check_classes(network, labels, len(x)), {"epochs": epochs, "lr": lr, "seed": seed, "settings": asked}
            kept = kept_parts("learn", {"module": ours, "images": x, "labels": y, "log_g": prices, **numbers_given})
            training = _Training(switches, torch.optim.Adam(ours.parameters(), lr), epochs, kept, deadline)
            training.go_on()
            history = training.run(x, y, settings)
    switches.settle()
    masks = xr.Dataset({g.name: (g.dim, switches.thetas[g.name].numpy() > 0.5) for g in gates}, attrs={"title": "True = kept"})
    _apply_masks(ours, network, gates, masks)
    return Learned(ours.eval(), masks, history)


def _prices(gates: Sequence[Gate], log_g: float | Mapping[str, float]) -> dict[str, float]:
    """Return ln(g) of each gate."""
    names = [gate.name for gate in gates]
    prices = dict(log_g) if isinstance(log_g, Mapping) else dict.fromkeys(names, float(log_g))
    if not names:
        raise InputError("the module has no layer that can carry gates: all its dense and convolution layers feed the output directly")
    if sorted(prices) != sorted(names) or not np.isfinite(list(prices.values())).all():
        raise InputError(f"log_g is {log_g}; expected one finite number, or one for each of {names}")
    return prices


class _Training:
    """The training of the weights of a module and the thetas, from the epoch that was finished last."""

    def __init__(self, switches: UnitSwitches, optimizer: torch.optim.Optimizer, epochs: int, kept: KeptParts, deadline: Deadline) -> None:
        self.switches, self.optimizer, self.epochs, self.kept, self.deadline = switches, optimizer, epochs, kept, deadline
        self.rows: list[dict[str, Any]] = []
        self.interrupted = self.stopped = False

    def run(self, x: Tensor, y: Tensor, settings: ParsimoniousSettings) -> xr.Dataset:
        """Train for the epochs that are left, and return the history."""
        self.switches.module.train()
        try:
            while len(self.rows) < self.epochs:
                self._epoch(x, y, settings)
                self._keep()
        except (KeyboardInterrupt, TimeLimitReached) as ended:
            if not self.rows:
                raise
            self.stopped = isinstance(ended, TimeLimitReached)
            self.interrupted = not self.stopped
            done = f"{'stopped by the time limit' if self.stopped else 'interrupted'} after {len(self.rows)} of {self.epochs} epochs"
            warnings.warn(f"learning was {done}: the module and the masks are those so far", RuntimeWarning, stacklevel=3)
        return self.history()

    def _epoch(self, x: Tensor, y: Tensor, settings: ParsimoniousSettings) -> None:
        switches, epoch, total = self.switches, len(self.rows), 0.0
        settled = self.epochs - round(settings.settle * self.epochs)
        if epoch == settled:
            switches.settle()
        for index in torch.split(torch.randperm(len(x)), settings.batch):
            self.deadline.check("learn for one epoch")
            cost = _step(switches.module, switches, x[index], y[index], self.optimizer, settings.weight_decay)
            total += float(cost.sum())
            if settings.warmup <= epoch < settled:
                switches.move(len(x), settings.step)
        thetas = {f"theta_{name}": theta.numpy().copy() for name, theta in switches.thetas.items()}
        self.rows.append({"loss": total / len(x), "undecided": switches.undecided(), **thetas})

    def columns(self) -> dict[str, Array]:
        """Return the columns of the history of the finished epochs."""
        return {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}

    def history(self) -> xr.Dataset:
        """Return the history of the finished epochs."""
        gates = {f"theta_{gate.name}": (gate.dim,) for gate in self.switches.gates}
        columns = {name: (("epoch", *gates.get(name, ())), values) for name, values in self.columns().items()}
        return xr.Dataset(columns, attrs={"epochs": self.epochs, "interrupted": self.interrupted, "stopped": self.stopped})

    def _keep(self) -> None:
        """Keep the state after an epoch: weights, those of the optimizer, thetas, the random numbers to come, and the history."""
        if self.kept.own is None:
            return
        arrays = {f"module {name}": value for name, value in self.switches.module.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer {number} {name}": torch.as_tensor(value) for name, value in state.items()}
        arrays |= {f"theta {name}": value for name, value in self.switches.thetas.items()} | {"random": torch.get_rng_state()}
        found = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
        found |= {f"history {name}": values for name, values in self.columns().items()}
        self.kept.keep(LAST_EPOCH, {"epochs": len(self.rows)}, array_dataset(found))

    def go_on(self) -> None:
        """Take up the state after the last epoch that was kept."""
        found = self.kept.read(LAST_EPOCH, lambda record, arrays: dataset_arrays(arrays))
        if found is None:
            return
        tensors = {name: torch.tensor(value) for name, value in found.items() if not name.startswith("history ")}
        self.switches.module.load_state_dict(_below("module", tensors))
        self.switches.thetas = _below("theta", tensors)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer", tensors).items():
            number, _, key = name.partition(" ")
            states.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        torch.set_rng_state(tensors["random"])
        columns = {name.partition(" ")[2]: values for name, values in found.items() if name.startswith("history ")}
        self.rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _below(word: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.partition(" ")[2]: value for name, value in tensors.items() if name.partition(" ")[0] == word}


def _step(module: nn.Module, switches: UnitSwitches, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, decay: float) -> Tensor:
    """Take one step of the weights and return the cross-entropy of each image; gradients of its mean are left at ``switches.drawn``."""
    switches.draw(len(x))
    optimizer.zero_grad()
    cost = F.cross_entropy(log_probabilities(module(x)), y, reduction="none")
    squares = torch.stack([(w**2).sum() for w in module.parameters() if w.ndim > 1]).sum()
    torch.autograd.backward(cost.mean() + decay / 2 * squares)
    optimizer.step()
    return cost.detach()


def _apply_masks(module: nn.Module, network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> None:
    """Set to zero the weights and biases of the removed units, and their batch norms."""
    parts = dict(module.named_modules())
    for gate in gates:
        gone = torch.tensor(~masks[gate.name].values)
        for node in gate.nodes:
            for name in path_to_site(network, network[node]):
                part = parts.get(network.modules.get(network[name].origin, ""))
                for value in part.parameters(recurse=False) if part is not None and network[name].layer.weights() else ():
                    with torch.no_grad():
                        value[gone] = 0.0
