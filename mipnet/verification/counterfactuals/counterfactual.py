"""`counterfactual`: the nearest input with another answer, with a proven lower bound of its distance; and further, different ones.

Wachter, Mittelstadt and Russell, "Counterfactual Explanations without Opening the Black Box", Harvard Journal of Law & Technology 31
(2018): the nearest input in the sum norm, each feature weighted by the inverse of its median absolute deviation.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import InputError, check_choice, suggest_keywords
from mipnet.formulations.distance import Norm
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import add_warning, carries_warnings, collected_warnings
from mipnet.network.graph import Network
from mipnet.network.properties import Clause
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterfactuals.answer_domain import answer_domain, answer_rules, unlike_answer
from mipnet.verification.counterfactuals.settings import MOVED_ARGUMENTS_OF_COUNTERFACTUAL, CounterfactualSettings
from mipnet.verification.counterfactuals.targets import Target, target_clauses
from mipnet.verification.distance_domain import DistanceDomain
from mipnet.verification.distortion_search import DistortionSearch
from mipnet.verification.named_features import NamedFeatures
from mipnet.verification.robustness import ENDS_TOLERANCE_FACTOR

SEARCH_RADIUS_GROWTH, SEARCH_RADII_MAX = 8.0, 10
"""Without limits, inputs are searched within the size of the input first; this grows by the factor, this many times at most."""

CounterfactualStatus = Literal["optimal", "feasible", "infeasible", "unknown"]
"""The distance is closed to the gap; or there is a point and a bound; or there is no such input, proven; or none was found in time."""


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The nearest input with the target answer lies at a distance in ``[bound, distance]``.

    ``point`` attains ``distance``; it is labelled by feature, and the network, run in torch, returns ``output`` there.  ``x`` is the given
    input.  The ``status`` is ``optimal`` if the distance is closed to the gap, ``feasible`` if it is not, ``infeasible`` if it is proven
    that no input within the limits has the target answer, and else ``unknown``; without a point ``distance`` is infinite.  ``further``
    are the answers after the first one, if several were asked for.  ``warnings`` say what was not closed or left out.
    """

    x: xr.DataArray
    point: xr.DataArray | None
    output: xr.DataArray | None
    distance: float
    bound: float
    status: CounterfactualStatus
    norm: Norm
    seconds: float
    nodes: int
    interrupted: bool = False
    warnings: tuple[str, ...] = ()
    further: tuple[Counterfactual, ...] = field(default=())

    @property
    def answers(self) -> tuple[Counterfactual, ...]:
        """All answers that have a point, nearest first."""
        return tuple(each for each in (self, *self.further) if each.point is not None)

    @property
    def change(self) -> xr.DataArray:
        """The point less the given input, without features that stay as they are; raises `InputError` if there is no point."""
        if self.point is None:
            raise InputError(f"there is no counterfactual: the status is {self.status}")
        difference = self.point - self.x
        return difference[difference != 0] if difference.ndim == 1 else difference

    def table(self) -> pd.DataFrame:
        """Return the given input and all answers as a table, one column per feature, with the distance of each."""
        rows = {"given": self.x, **{f"answer {k + 1}": each.point for k, each in enumerate(self.answers) if each.point is not None}}
        columns = list(self.x.values.reshape(-1)) if self.x.ndim != 1 else list(self.x.coords[self.x.dims[0]].values)
        names = columns if self.x.ndim == 1 else list(range(self.x.size))
        table = pd.DataFrame([each.values.reshape(-1) for each in rows.values()], index=list(rows), columns=names)
        return table.assign(distance=[0.0, *(each.distance for each in self.answers)])


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_COUNTERFACTUAL)
@carries_warnings
def counterfactual(
    network: Network,
    x: ArrayLike | Mapping[str, float],
    target: Target,
    *,
    immutable: Iterable[Any] = (),
    integer: Iterable[Any] = (),
    one_hot: Iterable[Iterable[Any]] | Mapping[str, Iterable[Any]] = (),
    norm: Norm = "l1",
    backend: str | Backend | MipSettings | CounterfactualSettings = "highs",
) -> Counterfactual:
    """Find the input nearest to ``x`` whose answer is the target, and prove how near it is.

        found = mn.counterfactual(net, {"age": 34, "income": 21.5, "married": 0}, 1, immutable=["age"], integer=["married"])
        found.change, found.distance, found.bound

    Parameters
    ----------
    x
        One input of the network's input shape; labelled by feature, or a mapping from features to numbers.
    target
        A class, or a list of classes of which one is enough; for a network with one output an interval ``(lower, upper)`` of it, one end of
        which may be None; or intervals by output, ``{0: (0.5, None)}``.
    immutable, integer
        Features that keep their value, and features that are whole numbers: by name (`Network.input_names`, or those of a labelled ``x``),
        or by number.
    one_hot
        Groups of features that are the columns of one category: exactly one of them is 1, and the others are 0.
    norm
        Of the difference from ``x``: ``l1`` the sum of its absolute values (few features change), ``l2`` the root of the sum of squares,
        ``linf`` the largest absolute value.  With weights see `CounterfactualSettings`.
    backend
        The solver, or `CounterfactualSettings` with the limits of the answers, how many there are, and a time limit.

    Linear bounds and gradient search bound the distance first.  Then a mixed-integer program is solved for each class, with the distance as
    objective; its bound is lowered by the solver's tolerances, and its point is replayed by the network in torch.  The search is that of
    `mipnet.minimum_distortion`.  Raises `InputError` for unknown features, for an input that contradicts the limits, and for a target that
    the network does not have.
    """
    began = time.monotonic()
    check_choice("the norm", norm, get_args(Norm))
    settings = CounterfactualSettings.of(backend)
    deadline = Deadline.after(settings.time_limit)
    features = NamedFeatures.of(network, x)
    clauses = target_clauses(network, target, settings.margin)
    image = features.array(x, "the input")
    rules = answer_rules(features, image, integer, one_hot)
    domain = answer_domain(features, image, norm, settings, rules, features.positions(immutable, "immutable"))
    found: list[Counterfactual] = []
    for number in range(settings.count):
        with collected_warnings(passed_on=not number) as told:
            answer = _nearest(features, domain, clauses, deadline.share(1 / (settings.count - number)), settings)
        bound = max([answer.bound, *(each.bound for each in found)])
        found.append(replace(answer, seconds=time.monotonic() - began, warnings=tuple(told) if number else (), bound=bound))
        if answer.point is None or answer.interrupted or number + 1 == settings.count:
            break
        domain = unlike_answer(domain, answer.point.values.reshape(-1), settings)
    if len(found) > 1 and found[-1].status == "infeasible":
        add_warning(f"there are {len(found) - 1} answers that differ as asked, and no more: {settings.count} were asked for")
    nodes, interrupted = sum(each.nodes for each in found), any(each.interrupted for each in found)
    return replace(found[0], further=tuple(found[1:]), nodes=nodes, interrupted=interrupted, seconds=time.monotonic() - began)


def _nearest(
    features: NamedFeatures, domain: DistanceDomain, clauses: tuple[Clause, ...], deadline: Deadline, settings: CounterfactualSettings
) -> Counterfactual:
    """Return the nearest answer of the domain; without limits, search within larger and larger distances until there is one."""
    began, excess, whole = time.monotonic(), Excess.of(features.network, clauses), domain.reach
    nodes, radius, lower = 0, whole, 0.0
    if np.isinf(whole):
        radius = float(np.abs(domain.image / domain.scale).max()) or 1.0
    for _ in range(SEARCH_RADII_MAX):
        search = DistortionSearch(excess, domain, radius, deadline, settings, lower=lower)
        search.learn(domain.image)
        if search.best > 0 and radius > 0:
            search.run(features.network, clauses)
        elif search.best > 0:  # no feature may change
            search.lower = np.inf
        nodes, lower = nodes + search.nodes, max(lower, search.lower)
        refuted = search.point is None and lower >= radius
        if not refuted or radius == whole or search.interrupted or deadline.passed:
            break
        radius *= SEARCH_RADIUS_GROWTH
    infeasible = refuted and radius == whole
    bound = np.inf if infeasible else min(lower, search.best)
    closed = search.point is not None and bound >= search.best * (1 - ENDS_TOLERANCE_FACTOR * settings.gap)
    status: CounterfactualStatus = (
        "optimal" if closed else "feasible" if search.point is not None else "infeasible" if infeasible else "unknown"
    )
    if status == "infeasible":
        add_warning("no input within the limits has the target answer: this is proven")
    elif status == "unknown":
        add_warning(f"no input with the target answer was found; none lies within distance {bound:.6g}")
    elif status == "feasible":
        search.warn_if_open()
    point = None if search.point is None else features.labelled(search.point)
    output = None if search.point is None else _labelled_output(features.network, search.point)
    return Counterfactual(
        features.labelled(domain.image),
        point,
        output,
        search.best,
        bound,
        status,
        domain.norm,
        time.monotonic() - began,
        nodes,
        search.interrupted,
    )


def _labelled_output(network: Network, x: Array) -> xr.DataArray:
    """Return the output of the network, run in torch, as a labelled array."""
    coords = {dim: np.arange(n) for dim, n in zip(network.output.dims, network.output_shape, strict=True)}
    return xr.DataArray(network.outputs(x)[0], dims=network.output.dims, coords=coords)
