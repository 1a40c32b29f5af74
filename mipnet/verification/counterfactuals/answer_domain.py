"""The inputs that may be answers of a counterfactual question: their limits, the distance from the input, and their rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mipnet.arrays import Array, Ints
from mipnet.errors import DataError, InputError
from mipnet.formulations.distance import Norm
from mipnet.verification.counterfactuals.feature_rules import FeatureRules, IsApart, LeavesOneUnchanged, Unlike
from mipnet.verification.counterfactuals.settings import CounterfactualSettings
from mipnet.verification.distance_domain import DistanceDomain, InputLimits
from mipnet.verification.named_features import NamedFeatures


def answer_rules(features: NamedFeatures, image: Array, integer: Any, one_hot: Any) -> FeatureRules:
    """Return the rules of whole numbers and one-hot groups; raises `InputError` unless the input satisfies those of the groups."""
    groups = features.groups(one_hot)
    for group in groups:
        if not (np.isin(image[group], (0.0, 1.0)).all() and image[group].sum() == 1):
            values = ", ".join(f"{features.called(k)} = {image[k]:g}" for k in group)
            raise InputError(f"the input has {values} in a one-hot group; expected one 1, and 0 otherwise")
    return FeatureRules(image, np.ones(features.count), features.positions(integer, "integer"), groups)


def answer_domain(
    features: NamedFeatures, image: Array, norm: Norm, settings: CounterfactualSettings, rules: FeatureRules, immutable: Ints
) -> DistanceDomain:
    """Return the inputs that may be answers."""
    low, high, polytope = np.full(features.count, -np.inf), np.full(features.count, np.inf), None
    if settings.within is not None:
        within = settings.within.fit(features.network.input_shape, features.names if isinstance(features.names[0], str) else ())
        if within.samples != 1 or within.ball is not None:
            raise InputError("`within` is several sets or a ball; expected one box, `mn.Polytope` or `mn.ConvexHull`")
        low, high, polytope = within.lower.reshape(-1).copy(), within.upper.reshape(-1).copy(), within.polytope
        outside = np.flatnonzero((image < low) | (image > high))
        if len(outside) and polytope is None:
            k = int(outside[0])
            ends = f"[{low[k]:g}, {high[k]:g}]"
            raise InputError(f"the input has {features.called(k)} = {image[k]:g}, outside of its bounds {ends} (`within`)")
    members = np.concatenate([*rules.groups, np.zeros(0, dtype=np.int64)])
    low[members], high[members] = np.maximum(low[members], 0.0), np.minimum(high[members], 1.0)
    for names, end, word in ((settings.increasing, low, "increasing"), (settings.decreasing, high, "decreasing")):
        some = features.positions(names, word)
        end[some] = np.maximum(end[some], image[some]) if word == "increasing" else np.minimum(end[some], image[some])
    kept = np.flatnonzero((image[immutable] < low[immutable]) | (image[immutable] > high[immutable]))
    if len(kept):
        k = int(immutable[kept[0]])
        raise InputError(f"{features.called(k)} is immutable at {image[k]:g}, outside of its bounds [{low[k]:g}, {high[k]:g}]")
    low[immutable] = high[immutable] = image[immutable]
    broken = [int(k) for k in rules.whole if low[k] == high[k] and low[k] != round(low[k])]
    if broken:
        raise InputError(f"{features.called(broken[0])} is a whole number, and immutable at {image[broken[0]]:g}; expected one of both")
    if (low > high).any():
        k = int(np.flatnonzero(low > high)[0])
        ends = f"at least {low[k]:g} and at most {high[k]:g}"
        raise InputError(f"{features.called(k)} has no value left: from {image[k]:g}, by its limits and by what it may do, it is {ends}")
    scale = _scale(features, settings)
    rules = replace(rules, ranges=np.where(np.isfinite(high - low), high - low, 1 + np.abs(image)))
    shape = (1, *features.network.input_shape)
    limits = InputLimits(low.reshape(shape), high.reshape(shape), polytope)
    return DistanceDomain(image.reshape(shape), norm, limits, scale.reshape(shape), rules)


def _scale(features: NamedFeatures, settings: CounterfactualSettings) -> Array:
    if settings.weights is None:
        return np.ones(features.count)
    weights = features.array(settings.weights, "`weights`")
    if not (weights > 0).all():
        k = int(np.flatnonzero(~(weights > 0))[0])
        raise DataError(f"`weights` has {weights[k]:g} for {features.called(k)}; expected finite numbers above 0")
    return np.asarray(1 / weights)


def unlike_answer(domain: DistanceDomain, answer: Array, settings: CounterfactualSettings) -> DistanceDomain:
    """Return the inputs that differ from an answer as asked, and lie in the domain."""
    rules, scale = domain.rules, np.broadcast_to(domain.scale, domain.image.shape).reshape(-1)
    if not isinstance(rules, FeatureRules):
        raise TypeError("a domain without rules of features")
    unlike: Unlike = (
        LeavesOneUnchanged(rules.image, np.flatnonzero(answer != rules.image))
        if settings.apart is None
        else IsApart(answer, settings.apart * scale)
    )
    return replace(domain, rules=replace(rules, unlike=(*rules.unlike, unlike)))
