"""Comparison of masks or scores with rivals, at the same share of pruned parameters.

Each rival makes masks in two ways, at the share of parameters that the compared mask prunes: with the layer counts of that mask
(``layers``), and by one ranking of its own over all layers (``global``).  Rivals see the images of the program; accuracy is measured on
held-out images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import xarray as xr

from mipnet.errors import InputError, TimeLimitReached, check_choice, shown, suggest_keywords
from mipnet.limits.code_digests import is_library
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.digests import digest
from mipnet.limits.kept_parts import KeptParts, PackedPart, kept_parts
from mipnet.limits.result_warnings import carries_warnings, collected_warnings
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.network.image_check import warn_of_images
from mipnet.network.named_inputs import check_input_order
from mipnet.pruning.labelled_images import LabelledImages
from mipnet.pruning.rivals.comparison_table import ComparisonRow, ComparisonTable
from mipnet.pruning.rivals.registry import RIVAL_RANKINGS, RIVALS, Rival, usable
from mipnet.pruning.rivals.score_arrays import scored_until
from mipnet.pruning.smaller.mask_check import warn_of_masks
from mipnet.pruning.smaller.masks import accuracy
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.smaller.ranking import ScoreNormalization, at_share, checked_scores
from mipnet.readers.data import Dataset


@suggest_keywords
@dataclass(frozen=True, eq=False)
class ComparisonSettings:
    """The settings of a comparison.

    Parameters
    ----------
    name
        The name of the compared method in the table; no rival may have it.
    normalize
        How the compared scores are divided per layer before they are ranked over all layers; see `mipnet.pruning.smaller.ranking`.
    options
        Further arguments of rivals by their names, such as ``{"snip": {"at": network_before_training}}``.
    repeats, seed
        A rival that draws is run with ``repeats`` seeds, from ``seed`` on.
    on_rival
        Called with the name of each rival before it is run.
    time_limit
        Seconds of the whole comparison, None for no limit; it is asked between the scores, masks and images of the rivals.
    """

    name: str = "mip"
    normalize: ScoreNormalization = "none"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repeats: int = 5
    seed: int = 0
    on_rival: Callable[[str], None] | None = None
    time_limit: TimeLimit = None

    def __post_init__(self) -> None:
        check_choice("`normalize`", self.normalize, get_args(ScoreNormalization))
        if wrong := [name for name, each in self.options.items() if not isinstance(each, Mapping)]:
            raise InputError(f"the options of `{wrong[0]}` are {shown(self.options[wrong[0]])}; expected a mapping from names of arguments")

    @suggest_keywords
    def check(self, rivals: Sequence[str]) -> None:
        """Raise `InputError` unless the settings fit the names of the rivals."""
        if unknown := sorted(set(self.options) - set(rivals)):
            raise InputError(f"options are given for {unknown}; the rivals to run are {list(rivals)}")
        if self.name in rivals:
            raise InputError(f"the name of the compared method is `{self.name}`; expected one that no rival has")

    @suggest_keywords
    def seeds(self, rival: Rival) -> range:
        """Return the seeds that a rival is run with."""
        return range(self.seed, self.seed + (self.repeats if rival.drawn else 1))


MOVED_ARGUMENTS_OF_COMPARE = {
    **{name: f"write `settings=mn.ComparisonSettings({name}=...)`" for name in (each.name for each in fields(ComparisonSettings))},
    "labels": "write `mn.LabelledImages(images, labels)` as the images",
    **{name: "write `mn.LabelledImages(images, labels)` as the holdout" for name in ("holdout_images", "holdout_labels")},
}
"""What to write instead of arguments that `compare` does not have any more; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_COMPARE)
@carries_warnings
def compare(
    network: Network,
    gates: Sequence[Gate],
    ours: xr.Dataset,
    images: LabelledImages | Dataset,
    holdout: LabelledImages | Dataset,
    *,
    rivals: Sequence[str] | None = None,
    shares: Sequence[float] = (),
    settings: ComparisonSettings | None = None,
) -> ComparisonTable:
    """Compare masks or scores with rivals, at the same share of pruned parameters.

    Parameters
    ----------
    ours
        Masks (booleans), compared at the share that they prune; or scores, made into masks at each of ``shares`` by one ranking over all
        layers.
    images
        The images and labels that rivals see.
    holdout
        The images and labels on which accuracy is measured.
    rivals
        Names of `RIVALS`; if None, all rivals whose packages are installed.

    Inside `mipnet.keep_parts` the rows of each rival are kept.  Ctrl-C or the time limit ends the comparison with the rivals that are
    finished.  Raises `TimeLimitReached` if the time ends before the accuracies of the compared masks are known.
    """
    ours = checked_scores(gates, ours)
    for each in (images, holdout):
        check_input_order(each.input_names, network.input_names, "the array of images")
    names, how = usable() if rivals is None else list(rivals), settings or ComparisonSettings()
    chosen = [RIVALS[rival] for rival in names]
    how.check(names)
    contest = _Contest(network, gates, images, holdout, Deadline.after(how.time_limit))
    reference = accuracy(network, holdout.images, holdout.labels, time_limit=contest.deadline)
    own = [OwnMasks(target, mask, contest.measure(mask)) for target, mask in _own_masks(network, gates, ours, shares, how.normalize)]
    rows = [_row(how.name, "given", one.target, [one.measured], 0.0) for one in own]
    warn_of_images(network, holdout.images, holdout.labels, contest.deadline)
    for one in own:
        with collected_warnings(f"at {100 * one.target:.3g} % of the parameters: "):
            warn_of_masks(network, gates, one.masks, holdout.images, holdout.labels, how.seed, contest.deadline)
    kept, left, interrupted = contest.kept_parts(ours, shares, how), list(names), False
    try:
        for rival in chosen:
            if how.on_rival is not None:
                how.on_rival(rival.name)
            rows += kept.once(_kept_name(rival), partial(contest.rows, rival, how, own), _packed_rows, _read_rows)
            left.remove(rival.name)
    except KeyboardInterrupt:  # the rivals so far are compared
        interrupted = True
    except TimeLimitReached:
        pass
    return ComparisonTable(tuple(rows), how.name, reference, how.seed, len(np.asarray(holdout.labels)), interrupted, tuple(left))


def _own_masks(
    network: Network, gates: Sequence[Gate], ours: xr.Dataset, shares: Sequence[float], normalize: ScoreNormalization
) -> Iterator[tuple[float, xr.Dataset]]:
    """Yield each target share with the compared masks for it."""
    boolean = [ours[gate.name].dtype == bool for gate in gates]
    if any(boolean) != all(boolean) or all(boolean) == bool(len(shares)):
        raise InputError("expected masks (booleans) and no shares, or scores (numbers) and at least one share")
    if all(boolean):
        yield pruned_share(network, gates, ours), ours
    for share in shares:
        yield float(share), at_share(network, gates, ours, share, normalize)


class Measured(NamedTuple):
    """The share of parameters that a mask prunes, in [0, 1], and the accuracy with it, in percent."""

    share: float
    accuracy: float


class OwnMasks(NamedTuple):
    """One's own masks for one target share."""

    target: float
    masks: xr.Dataset
    measured: Measured


@dataclass(frozen=True, eq=False)
class _Contest:
    """The network, the images that rivals see and the images that decide."""

    network: Network
    gates: Sequence[Gate]
    images: LabelledImages | Dataset
    holdout: LabelledImages | Dataset
    deadline: Deadline

    def kept_parts(self, ours: xr.Dataset, shares: Sequence[float], how: ComparisonSettings) -> KeptParts:
        """Return the rows that are kept, by the name of the rival."""
        images, holdout = ((np.asarray(each.images), np.asarray(each.labels)) for each in (self.images, self.holdout))
        on = {"network": self.network, "gates": self.gates, "images": images, "holdout": holdout}
        return kept_parts(
            "compare", on | {"scores": ours, "shares": list(shares), "settings": replace(how, on_rival=None, time_limit=None)}
        )

    def measure(self, masks: xr.Dataset) -> Measured:
        right = accuracy(self.network, self.holdout.images, self.holdout.labels, self.gates, masks, time_limit=self.deadline)
        return Measured(pruned_share(self.network, self.gates, masks), right)

    def rows(self, rival: Rival, how: ComparisonSettings, own: Sequence[OwnMasks]) -> list[ComparisonRow]:
        """Return the rows of one rival: for each of the compared masks, one row per ranking; raises `TimeLimitReached`."""
        began, seeds, options = time.perf_counter(), how.seeds(rival), how.options.get(rival.name)
        given = self.images.images, self.images.labels
        prepared = {}
        for seed in seeds:
            self.deadline.check(f"score the units by `{rival.name}`")
            with scored_until(self.deadline):
                prepared[seed] = rival.prepared(self.network, self.gates, *given, seed=seed, options=options)
        spent = (time.perf_counter() - began) / len(seeds)
        return [self._row(rival, ranking, prepared, one, spent) for one in own for ranking in RIVAL_RANKINGS]

    def _row(self, rival: Rival, ranking: str, prepared: Mapping[int, xr.Dataset], own: OwnMasks, spent: float) -> ComparisonRow:
        """Return the row of one rival and ranking, at least at the share of the compared masks; its scores took ``spent`` seconds."""
        began, share = time.perf_counter(), own.measured.share
        made = []
        for seed, scores in prepared.items():
            self.deadline.check(f"rank the units by `{rival.name}`")
            made.append(rival.masks(self.network, self.gates, scores, ranking=ranking, like=own.masks, share=share, seed=seed))
        seconds = spent + (time.perf_counter() - began) / len(prepared)
        return _row(rival.name, ranking, own.target, [self.measure(masks) for masks in made], seconds)


def _kept_name(rival: Rival) -> str:
    """Return the name of the rows that are kept of a rival; of a user's rival with a digest, so that rows of other code are not taken."""
    return rival.name if is_library(rival.score) else f"{rival.name} {digest(replace(rival, order=0.0))[:12]}"


def _packed_rows(rows: Iterable[ComparisonRow]) -> PackedPart:
    return PackedPart({"rows": [asdict(row) for row in rows]})


def _read_rows(record: Mapping[str, Any], arrays: xr.Dataset | None) -> list[ComparisonRow]:
    return [ComparisonRow(**row) for row in record["rows"]]


def _row(rival: str, ranking: str, target: float, measured: Sequence[Measured], seconds: float) -> ComparisonRow:
    shares, accuracies = np.array(measured).T
    return ComparisonRow(rival, ranking, target, float(shares.mean()), float(accuracies.mean()), float(accuracies.std()), seconds)
