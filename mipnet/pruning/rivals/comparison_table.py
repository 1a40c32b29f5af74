"""The table of a comparison: one row for each mask, with its share of pruned parameters and its accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from mipnet.errors import InputError, suggest_keywords


@dataclass(frozen=True)
class ComparisonRow:
    """One mask, or the mean over several draws.

    ``target`` is the share of parameters to prune and ``share`` the share that is pruned, both in [0, 1].  ``accuracy`` and its standard
    deviation ``spread`` are in percent.  ``seconds`` is the time of scoring and ranking.
    """

    rival: str
    ranking: str
    target: float
    share: float
    accuracy: float
    spread: float
    seconds: float


@dataclass(frozen=True)
class ComparisonTable:
    """The rows of a comparison.

    ``name`` is the name of the compared method, ``reference`` the accuracy without masks in percent, ``holdout`` the number of its images.
    If Ctrl-C ``interrupted`` the comparison or its time ended, the rivals in ``left_out`` were not finished and have no rows.
    ``warnings`` say where the compared masks do no better than random ones, and whether the held-out images look unscaled.
    """

    rows: tuple[ComparisonRow, ...]
    name: str
    reference: float
    seed: int
    holdout: int
    interrupted: bool = False
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[float, ...]:
        """The shares to prune."""
        return tuple(dict.fromkeys(row.target for row in self.rows))

    @property
    def methods(self) -> tuple[str, ...]:
        """One's own method and the rivals."""
        return tuple(dict.fromkeys(row.rival for row in self.rows))

    @suggest_keywords
    def best(self, rival: str, target: float) -> ComparisonRow:
        """Return the most accurate row of a method at a target; raises `InputError` if there is none."""
        found = [row for row in self.rows if row.rival == rival and row.target == target]
        if not found:
            raise InputError(f"no row of `{rival}` at {target}; the table has {', '.join(self.methods)} at {self.targets}")
        return max(found, key=lambda row: row.accuracy)

    @suggest_keywords
    def beaten(self, target: float) -> dict[str, bool]:
        """Return, for each rival, whether the compared mask is at least as accurate as the rival's better ranking."""
        own = self.best(self.name, target).accuracy
        return {rival: own >= self.best(rival, target).accuracy for rival in self.methods if rival != self.name}

    def to_markdown(self) -> str:
        """Return the table as Markdown, the most accurate row first within each target."""
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

    def _line(self, row: ComparisonRow) -> str:
        name = f"**{row.rival}**" if row.rival == self.name else row.rival
        spread = f" ± {row.spread:.2f}" if row.spread else ""
        lost = self.reference - row.accuracy
        return f"| {name} | {row.ranking} | {100 * row.share:.1f} % | {row.accuracy:.2f} %{spread} | {lost:.2f} | {row.seconds:.2f} |"

    def to_dataset(self) -> xr.Dataset:
        """Return the columns as variables along ``row``, for files and plots."""
        columns = {f.name: ("row", np.array([getattr(row, f.name) for row in self.rows])) for f in fields(ComparisonRow)}
        attrs = {"name": self.name, "reference": self.reference, "seed": self.seed, "holdout": self.holdout}
        return xr.Dataset(columns, attrs=attrs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return asdict(self)
