"""Agreement of two networks on the class: whether they name the same one for every input of a box."""

from __future__ import annotations

import time

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError, TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.properties import Case, Property
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.oracle import Oracle
from mipnet.verification.reach import check_tolerance, one_box
from mipnet.verification.two_networks.agreement import Agreement, bounds_of_both, largest_value
from mipnet.verification.two_networks.class_pairs import class_clauses, possible_classes
from mipnet.verification.two_networks.joint_network import check_shapes, join_networks
from mipnet.verification.verify import verify

CLASSES_SHOWN_MAX = 10
"""Number of classes that a warning lists."""


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
@carries_warnings
def agree_on_class(
    first: Network,
    second: Network,
    region: Box,
    *,
    margin: float = 1e-6,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 60.0,
    seed: int = 0,
) -> Agreement:
    """Decide whether both networks name the same class for every input of a box.

    Only inputs count at which the largest output of each network exceeds all others by at least ``margin``, relative to the size of its
    outputs: the largest absolute one that was found in the box.  Without a margin, a tie of two classes would be a disagreement, even of a
    network with itself.  For each pair of classes that may be the largest in the first and in
    the second network, `mipnet.verify` searches an input; the other arguments are those of `mipnet.verify`.

    A softmax at the end of one or both networks does not change their classes; the margin is then that of the logits, which is at least
    twice that of the probabilities.  Raises `UnsupportedError` for a softmax over several groups of outputs.
    """
    began, deadline, count = time.monotonic(), Deadline.after(time_limit), size(first.output_shape)
    check_shapes(first, second)
    first.check_classes()
    second.check_classes()
    region = one_box(first, region)
    check_tolerance(margin)
    if count < 2:
        raise InputError("the networks return one number; classes need at least two: use `mipnet.agree`")
    mip = MipSettings.of(backend)
    bounds = None
    try:
        bounds = bounds_of_both(first, second, region, deadline)
        joined = join_networks(first, second, region, "both", bounds=bounds, deadline=deadline)
        sizes = [largest_value(each, region, deadline, seed) for each in (first, second)]
        clauses = class_clauses(joined, region, bounds, margin * np.array(sizes), deadline)
    except (TimeLimitReached, KeyboardInterrupt) as ended:
        interrupted = isinstance(ended, KeyboardInterrupt)
        if bounds is None and interrupted:  # some forward passes
            bounds = propagate(first, region, method="interval"), propagate(second, region, method="interval")
        proven = bounds is not None and _agree_by_separate_bounds(bounds)
        method, seconds = "separate" if proven else None, time.monotonic() - began
        found = Agreement(proven or None, "class", 0.0, np.inf, None, None, None, method, 0, seconds, 0, 0, mip.solver.name, interrupted)
        found.warn_if_open(margin)
        return found
    flat = region.reshape((1, region.lower.size))

    def run(x: Array) -> Array:
        return np.concatenate([each.forward(x).reshape(len(x), -1) for each in (first, second)], axis=1)

    verdict = verify(
        joined.network,
        Property((Case(flat, tuple(clauses)),)),
        time_limit=deadline,
        backend=mip,
        oracle=Oracle("torch", run, at_once=samples_at_once(joined.network)),
        seed=seed,
    )
    x = verdict.counterexample
    y = None if x is None else [each.outputs(x[None]).reshape(-1) for each in (first, second)]
    differ = x is not None and len({int(each.forward(x[None]).argmax()) for each in (first, second)}) > 1
    found = Agreement(
        False if differ else True if verdict.status == "unsat" else None,
        "class",
        0.0 if y is None else float(np.abs(y[0] - y[1]).max()),
        np.inf,
        x,
        None if y is None else y[0],
        None if y is None else y[1],
        verdict.stage if clauses else "crown",
        joined.shared,
        time.monotonic() - began,
        verdict.parts,
        verdict.nodes,
        verdict.backend,
        verdict.interrupted,
    )
    if found.agree is None and clauses:
        refuted = sum(verdict.refuted.values())
        add_warning(f"{len(clauses) - refuted} of {count * (count - 1)} pairs of different classes are not excluded")
    found.warn_if_open(margin)
    return found


def _agree_by_separate_bounds(bounds: tuple[Bounds, Bounds]) -> bool:
    """Return whether bounds of each network alone leave one class, the same in both; else add a warning that says what they leave."""
    left = [np.flatnonzero(possible_classes(each, 0.0)).tolist() for each in bounds]
    if len(left[0]) == 1 and left[0] == left[1]:
        return True
    words = (", ".join(map(str, classes[:CLASSES_SHOWN_MAX])) + (", ..." if len(classes) > CLASSES_SHOWN_MAX else "") for classes in left)
    add_warning("the first network can only name a class of {}, and the second one of {}".format(*words))
    return False
