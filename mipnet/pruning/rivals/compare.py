"""The harness for "at the same share of pruned parameters": masks or scores of one's own against every rival.

Each rival makes masks in two ways: with the layer counts of one's own mask (``layers``) and by its own ranking over all layers
(``global``), at the share of parameters that one's own mask prunes.  Rivals see ``images``; accuracy is measured on the hold-out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.catalogue import RANKINGS, Rival, get_rival, usable
from mipnet.pruning.smaller.masks import accuracy
from mipnet.pruning.smaller.parameters import pruned_share
from mipnet.pruning.smaller.ranking import Normalize, at_share, check_scores


@dataclass(frozen=True)
class Row:
    """One mask, or the mean of several draws: ``share`` in [0, 1], ``accuracy`` and its standard deviation ``spread`` in percent.

    ``target`` is the share asked for, ``seconds`` what scoring and ranking took.
    """

    rival: str
    ranking: str
    target: float
    share: float
    accuracy: float
    spread: float
    seconds: float


@dataclass(frozen=True)
class Table:
    """The rows of a comparison; ``name`` is one's own method, ``reference`` the accuracy in percent without masks."""

    rows: tuple[Row, ...]
    name: str
    reference: float
    seed: int
    holdout: int

    @property
    def targets(self) -> tuple[float, ...]:
        """The shares asked for."""
        return tuple(dict.fromkeys(row.target for row in self.rows))

    @property
    def methods(self) -> tuple[str, ...]:
        """One's own method and the rivals."""
        return tuple(dict.fromkeys(row.rival for row in self.rows))

    def best(self, rival: str, target: float) -> Row:
        """A rival's most accurate row at a target; raises `InputError` if there is none."""
        found = [row for row in self.rows if row.rival == rival and row.target == target]
        if not found:
            raise InputError(f"no row of `{rival}` at {target}; the table has {', '.join(self.methods)} at {self.targets}")
        return max(found, key=lambda row: row.accuracy)

    def beaten(self, target: float) -> dict[str, bool]:
        """For each rival whether one's own mask is at least as accurate as the rival's better ranking."""
        own = self.best(self.name, target).accuracy
        return {rival: own >= self.best(rival, target).accuracy for rival in self.methods if rival != self.name}

    def to_markdown(self) -> str:
        """A table, the most accurate first within each target."""
        lines = [
            f"Accuracy without masks: {self.reference:.2f} % of {self.holdout:,} images (seed {self.seed}).",
            "",
            "| method | ranking | parameters pruned | accuracy | lost | seconds |",
            "|---|---|---:|---:|---:|---:|",
        ]
        for target in self.targets:
            rows = sorted((row for row in self.rows if row.target == target), key=lambda row: -row.accuracy)
            lines += [self._line(row) for row in rows]
        return "\n".join(lines) + "\n"

    def _line(self, row: Row) -> str:
        name = f"**{row.rival}**" if row.rival == self.name else row.rival
        spread = f" ± {row.spread:.2f}" if row.spread else ""
        lost = self.reference - row.accuracy
        return f"| {name} | {row.ranking} | {100 * row.share:.1f} % | {row.accuracy:.2f} %{spread} | {lost:.2f} | {row.seconds:.2f} |"

    def to_dataset(self) -> xr.Dataset:
        """The columns as variables along ``row``, for files and plots."""
        columns = {f.name: ("row", np.array([getattr(row, f.name) for row in self.rows])) for f in fields(Row)}
        attrs = {"name": self.name, "reference": self.reference, "seed": self.seed, "holdout": self.holdout}
        return xr.Dataset(columns, attrs=attrs)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return asdict(self)


def compare(
    network: Network,
    gates: Sequence[Gate],
    ours: xr.Dataset,
    images: ArrayLike,
    labels: ArrayLike,
    holdout_images: ArrayLike,
    holdout_labels: ArrayLike,
    *,
    name: str = "mip",
    rivals: Sequence[str] | None = None,
    shares: Sequence[float] = (),
    normalize: Normalize = "none",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    repeats: int = 5,
    seed: int = 0,
    on_rival: Callable[[str], None] | None = None,
) -> Table:
    """One's own masks or scores against rivals, at the same share of pruned parameters.

    ``ours`` are masks (booleans, compared at the share that they prune) or scores (made into masks at each of ``shares``, by one
    ranking over all layers with ``normalize``).  ``rivals`` are names of `RIVALS`, all that can run here if None; ``options`` has
    further arguments by name, such as ``{"snip": {"at": network_before_training}}``.  A rival that draws is run with ``repeats``
    seeds from ``seed`` on.  ``on_rival`` is called with the name of each rival before it is run.
    """
    check_scores(gates, ours)
    names = usable() if rivals is None else list(rivals)
    chosen = [get_rival(rival) for rival in names]
    own = options or {}
    if unknown := sorted(set(own) - set(names)):
        raise InputError(f"options are given for {unknown}; the rivals to run are {names}")
    if name in names or repeats < 1:
        raise InputError(f"{name=}, {repeats=}; expected a name that no rival has, and at least one repeat")
    masks = list(_own_masks(network, gates, ours, shares, normalize))
    rows = [_row(name, "given", target, [_measured(network, gates, mask, holdout_images, holdout_labels)], 0.0) for target, mask in masks]
    for rival in chosen:
        if on_rival is not None:
            on_rival(rival.name)
        started = time.perf_counter()
        seeds = range(seed, seed + (repeats if rival.drawn else 1))
        found = [rival.prepared(network, gates, images, labels, seed=s, **own.get(rival.name, {})) for s in seeds]
        spent = (time.perf_counter() - started) / len(seeds)
        for target, mask in masks:
            rows += [
                _contest(network, gates, rival, found, seeds, ranking, target, mask, holdout_images, holdout_labels, spent)
                for ranking in RANKINGS
            ]
    return Table(tuple(rows), name, accuracy(network, holdout_images, holdout_labels), seed, len(np.asarray(holdout_labels)))


def _own_masks(
    network: Network, gates: Sequence[Gate], ours: xr.Dataset, shares: Sequence[float], normalize: Normalize
) -> Iterator[tuple[float, xr.Dataset]]:
    """Each target share with one's own masks for it."""
    boolean = [ours[gate.name].dtype == bool for gate in gates]
    if any(boolean) != all(boolean) or all(boolean) == bool(len(shares)):
        raise InputError("expected masks (booleans) and no shares, or scores (numbers) and at least one share")
    if all(boolean):
        yield pruned_share(network, gates, ours), ours
    for share in shares:
        yield float(share), at_share(network, gates, ours, share, normalize)


def _contest(
    network: Network,
    gates: Sequence[Gate],
    rival: Rival,
    found: Sequence[xr.Dataset],
    seeds: Sequence[int],
    ranking: str,
    target: float,
    mask: xr.Dataset,
    images: ArrayLike,
    labels: ArrayLike,
    spent: float,
) -> Row:
    """The row of one rival, ranking and target; ``spent`` seconds went into its scores.  Its share is at least that of ``mask``."""
    started = time.perf_counter()
    share = pruned_share(network, gates, mask)
    made = [rival.masks(network, gates, one, ranking=ranking, like=mask, share=share, seed=s) for one, s in zip(found, seeds, strict=True)]
    seconds = spent + (time.perf_counter() - started) / len(seeds)
    return _row(rival.name, ranking, target, [_measured(network, gates, one, images, labels) for one in made], seconds)


def _measured(network: Network, gates: Sequence[Gate], mask: xr.Dataset, images: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """``(share pruned, accuracy)``."""
    return pruned_share(network, gates, mask), accuracy(network, images, labels, gates, mask)


def _row(rival: str, ranking: str, target: float, measured: Sequence[tuple[float, float]], seconds: float) -> Row:
    shares, accuracies = np.array(measured).T
    return Row(rival, ranking, target, float(shares.mean()), float(accuracies.mean()), float(accuracies.std()), seconds)
