"""The test set, looked at once: the chosen mask, its controls and its rivals; and what a case came to, kept in a file."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from mipnet.pruning.rivals.registry import RIVAL_RANKINGS, RIVALS
from mipnet.pruning.smaller.masks import critical_masks
from mipnet.pruning.smaller.surgery import prune
from mipnet.pruning.training import evaluate, fine_tune
from tests.bench.importance.search import Case, Found, Quick, Setting, Stepwise, best
from tests.bench.measure import ROOT
from tests.bench.trained import CACHE

JUDGED_RIVALS = ("random", "magnitude", "activation", "taylor", "fisher", "snip", "sipp", "pfp")
REPEATS = 5
MOST = 2000
"""Images that a rival sees at most: SiPP and PFP take minutes with more."""

Settings = tuple[Setting | Stepwise, ...]


def case_row(case: Case, settings: Settings, budget: float, fresh: bool = False) -> dict[str, Any]:
    """What a case came to: as kept, if the same settings were tried before and `fresh` is not asked for."""
    if not fresh and (found := kept_row(case, settings, budget)) is not None:
        return found
    chosen, tried = best(case, settings, budget)
    row = judged(case, chosen) | {"tried": [_tried(one) for one in tried], "budget": budget}
    CACHE.mkdir(parents=True, exist_ok=True)
    _file(case, settings, budget).write_text(json.dumps(row))
    return row


def kept_row(case: Case, settings: Settings, budget: float) -> dict[str, Any] | None:
    """What a case came to before, or None."""
    path = _file(case, settings, budget)
    return json.loads(path.read_text()) if path.exists() else None


def _file(case: Case, settings: Settings, budget: float) -> Path:
    key = hashlib.sha256(repr((settings, budget)).encode()).hexdigest()[:12]
    return CACHE / f"importance-{case.name}-{key}.json"


def is_kept(name: str) -> bool:
    """True if `kept` would read a file."""
    return (CACHE / f"importance-{name}.json").exists()


def kept(name: str, run: Callable[[], Any], fresh: bool) -> Any:
    """What `run` finds, or found before."""
    path = CACHE / f"importance-{name}.json"
    if fresh or not path.exists():
        found = run()
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def judged(case: Case, found: Found) -> dict[str, Any]:
    """Accuracies on the test set, in percent, and what the mask cost."""
    test = Quick(case, *case.split.test)
    rivals = {name: _contest(case, found, test, name) for name in JUDGED_RIVALS}
    return {
        "source": case.source,
        "net": case.net,
        "seed": case.seed,
        "setting": found.setting.words,
        "choose_lost": found.lost,
        "share": found.share,
        "reference": test.reference,
        "masked": test.accuracy(found.masks),
        "random": rivals["random"]["layers"],
        "critical": test.accuracy(critical_masks(found.masks, found.scores)),
        "tuned": _tuned(case, found),
        "seconds": found.seconds,
        "programs": found.programs,
        "columns": found.columns,
        "cuts": found.cuts,
        "rivals": rivals,
        "commit": commit(),
        "date": str(datetime.date.today()),
    }


def _contest(case: Case, found: Found, test: Quick, name: str) -> dict[str, float]:
    """A rival's accuracy by each ranking, as `mipnet.pruning.rivals.comparison` ranks, on all images that the mask was made from."""
    rival, (images, labels) = RIVALS[name], case.images(min(found.setting.seen, MOST))
    accuracies: dict[str, list[float]] = {ranking: [] for ranking in RIVAL_RANKINGS}
    for seed in range(REPEATS if rival.drawn else 1):
        ready = rival.prepared(case.network, case.gates, images, labels, seed=seed)
        for ranking in RIVAL_RANKINGS:
            made = rival.masks(case.network, case.gates, ready, ranking=ranking, like=found.masks, share=found.share, seed=seed)
            accuracies[ranking].append(test.accuracy(made))
    means = {ranking: mean(values) for ranking, values in accuracies.items()}
    return means | {"accuracy": max(means.values())}


def _tuned(case: Case, found: Found) -> float:
    """Accuracy of the really smaller network after one more epoch of training."""
    images, labels = case.split.train
    small = prune(case.module, found.masks, images[:1])
    return evaluate(fine_tune(small, images, labels, epochs=1, seed=case.seed), *case.split.test)[1]


def _tried(found: Found) -> dict[str, Any]:
    return {"setting": found.setting.words, "share": found.share, "lost": found.lost, "seconds": found.seconds}


def commit() -> str:
    """The commit that is checked out, with a ``+`` if the library has been edited since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "mipnet", "backends") else "")
