"""The registry of rivals: other ways to score units.

The score of a rival is a function ``(network, gates, images, labels, *, seed) -> scores``, with options of its own as further keywords.
Scores are Datasets with one variable per gate, along its dimension; larger is more important.  `rival` registers such a function::

    @mn.rival("bias", about="the bias of a unit")
    def bias(network, gates, images, labels, *, seed=0):
        found = {gate.name: (gate.dim, network[gate.nodes[0]].layer.bias.numpy()) for gate in gates}
        return xr.Dataset(found)

The rivals of mipnet are the files in `mipnet.pruning.rivals.scores`, one per rival; they are loaded when `RIVALS` is first read.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.errors import InputError, check_choice, expected_one_of, shown, suggest_keywords
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.network.labelled_samples import align_samples
from mipnet.pruning.smaller.ranking import ScoreNormalization, at_share, same_counts

RIVAL_RANKINGS = ("layers", "global")

SCORES_PACKAGE = "mipnet.pruning.rivals.scores"
"""The package whose modules register the rivals of mipnet."""


class Score(Protocol):
    """The score of a rival; options of its own are keywords with defaults."""

    def __call__(self, network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, /, *, seed: int = 0) -> xr.Dataset:
        """Return one variable per gate, along its dimension; larger is more important."""


ScoreFunction = TypeVar("ScoreFunction", bound=Score)


@dataclass(frozen=True)
class Rival:
    """A rival, as `rival` registers it.

    ``normalize`` says how the scores of a layer are divided before they are ranked over all layers.  ``drawn`` is True if the seed matters.
    ``needs`` is the name of a package that has to be installed.  ``order`` is the place in `RIVALS`.
    """

    name: str
    score: Score
    about: str
    source: str = ""
    normalize: ScoreNormalization = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = False
    needs: str = ""
    order: float = math.inf

    @property
    def installed(self) -> bool:
        """False if the package that it ``needs`` is missing."""
        return not self.needs or find_spec(self.needs.replace("-", "_")) is not None

    def check(self) -> None:
        """Raise `InputError` if the package that it needs is missing."""
        if not self.installed:
            raise InputError(f"the rival `{self.name}` needs `{self.needs}`, which is not installed: pip install mipnet[rivals]")

    @align_samples
    def scores(
        self,
        network: Network,
        gates: Sequence[Gate],
        images: ArrayLike,
        labels: ArrayLike,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Return the scores of every gate; ``options`` are further keywords of the score."""
        self.check()
        function: Callable[..., xr.Dataset] = suggest_keywords(self.score)
        return function(network, gates, images, labels, seed=seed, **{**self.options, **(options or {})})

    def prepared(
        self,
        network: Network,
        gates: Sequence[Gate],
        images: ArrayLike,
        labels: ArrayLike,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Return what `masks` takes: the scores, unless a rival makes its masks in another way."""
        return self.scores(network, gates, images, labels, seed=seed, options=options)

    def masks(
        self, network: Network, gates: Sequence[Gate], prepared: xr.Dataset, *, ranking: str, like: xr.Dataset, share: float, seed: int = 0
    ) -> xr.Dataset:
        """Return the masks of this rival.

        The ranking ``layers`` keeps as many units per layer as ``like``; ``global`` prunes ``share`` of the parameters by one ranking
        of all units.
        """
        check_ranking(ranking)
        return same_counts(gates, prepared, like) if ranking == "layers" else at_share(network, gates, prepared, share, self.normalize)


def check_ranking(ranking: str) -> None:
    """Raise `InputError` unless a ranking is known."""
    check_choice("the ranking", ranking, RIVAL_RANKINGS)


_registered: dict[str, Rival] = {}


def register(rival: Rival) -> None:
    """Add a rival to `RIVALS`; raises `InputError` if another one has its name.

    The same function under the same name replaces the one before, so that a cell of a notebook can be run again.
    """
    if not _home(rival.score)[0].startswith(SCORES_PACKAGE):
        Rivals._loaded()  # so that a name of mipnet's own rivals is refused here, and not when these are read
    known = _registered.get(rival.name)
    if known is not None and _home(known.score) != _home(rival.score):
        raise InputError(f"`{'.'.join(_home(known.score))}` is registered as rival `{rival.name}`; choose another name")
    _registered[rival.name] = rival


def _home(score: Score) -> tuple[str, str]:
    return getattr(score, "__module__", ""), getattr(score, "__qualname__", type(score).__qualname__)


@suggest_keywords
def rival(
    name: str,
    *,
    about: str,
    source: str = "",
    normalize: ScoreNormalization = "none",
    options: Mapping[str, Any] | None = None,
    drawn: bool = False,
    needs: str = "",
    order: float = math.inf,
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register the decorated function as the score of a rival, for `mipnet.compare` and for YAML files read in this process.

    Parameters
    ----------
    name
        The name in `RIVALS`, in tables and in YAML files.
    about, source
        One line about the score, and where it was published.
    normalize
        By what the scores of a layer are divided before all units are ranked: ``none``, ``mean``, ``l2``, ``max`` or ``sum``.
    options
        Keywords of the function, if they differ from its defaults.
    drawn
        True if the scores depend on the seed.
    needs
        The name of a package that has to be installed.
    order
        The place in `RIVALS`, smaller first; by default after those that have one.
    """

    def decorate(score: ScoreFunction) -> ScoreFunction:
        register(Rival(name, score, about, source, normalize, options or {}, drawn, needs, order))
        return score

    return decorate


class Rivals(Mapping[str, Rival]):
    """All registered rivals by name, in their order; loads those of mipnet when it is first read.

    An unknown name raises `InputError` with the names of all rivals.
    """

    def __getitem__(self, name: str) -> Rival:
        if name not in self:
            raise InputError(f"no rival is called {f'`{name}`' if isinstance(name, str) else shown(name)}; {expected_one_of(name, self)}")
        return self._loaded()[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._loaded()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the rival of that name, or ``default`` if there is none."""
        return self._loaded().get(name, default) if isinstance(name, str) else default

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaded(), key=lambda name: _registered[name].order))

    def __len__(self) -> int:
        return len(self._loaded())

    @staticmethod
    def _loaded() -> dict[str, Rival]:
        for module in pkgutil.iter_modules(import_module(SCORES_PACKAGE).__path__, f"{SCORES_PACKAGE}."):
            import_module(module.name)
        return _registered


RIVALS = Rivals()
"""All rivals by name."""


def usable() -> list[str]:
    """Return the names of the rivals whose packages are installed."""
    return [name for name, rival in RIVALS.items() if rival.installed]
