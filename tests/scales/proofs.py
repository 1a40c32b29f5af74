"""Questions with certified answers: `reach`, `verify`, `agree`, `agree_on_class`, `compress` and `maximum_margin`."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

import mipnet as mn
from mipnet.arrays import Array
from tests.scales.exact import Exact
from tests.scales.setting import ROUNDING, SECONDS, Found, Setting, product, size_of

TOLERANCE = 1.01e-4
"""The tolerance of `reach`, `agree` and `maximum_margin` if none is given, and a little more."""


def reach(s: Setting) -> Iterator[Found]:
    """The extremes of a random function of the outputs and of the first output."""
    rows = np.stack([s.direction(), np.eye(s.outputs)[0]])
    found = mn.reach(s.network, s.case.region, rows, backend=s.backend, time_limit=SECONDS)
    for row, lowest, highest in zip(rows, found.lowest, found.highest, strict=True):
        truth = s.exact.extremes(row)
        unit = size_of(truth)
        for end, exact, sign in ((lowest, truth[0], 1), (highest, truth[1], -1)):
            over, x = sign * (Fraction(end.bound) - exact), end.point[None]
            text = f"[{end.bound}, {end.value}] exact {float(exact)} unit {unit:.2g} {end.method} over {float(over) / unit:.1e}"
            rounded = 0 if truth[0] < truth[1] else 1e-12 * unit  # a constant is what float64 computes
            if over > rounded or not s.inside(x) or abs(Fraction(end.value) - s.value(row, x)) > ROUNDING * unit:
                yield "WRONG", text
            else:
                yield ("right" if max(-over, end.gap) <= TOLERANCE * unit else "wider"), text


def verify(s: Setting) -> Iterator[Found]:
    """Thresholds inside and outside of the extremes of a function; and clauses of two rows."""
    w = s.direction()
    low, high = s.exact.extremes(w)
    unit = size_of((low, high))
    reach = max(float(high - low), 1e-4 * unit)
    for share in (1e-2, -1e-2, 1e-4, -1e-4, 1e-6, -1e-6):
        for sign, end in ((-1.0, high), (1.0, low)):  # w y at least, or at most, a number
            threshold = float(end) - sign * share * reach
            clause = mn.Clause(sign * w[None], np.array([sign * threshold]))
            yield verdict(s, clause, sign * Fraction(threshold) >= sign * (high if sign < 0 else low), unit, f"share {share}")
    rows = s.rng.normal(size=(2, s.outputs))
    y = s.network.forward(s.rng.uniform(s.case.lower, s.case.upper)).reshape(-1)
    for shift in (1e-3, -1e-1):
        right = rows @ y + shift * unit
        yield verdict(s, mn.Clause(rows, right), s.exact.holds_somewhere(rows, right.tolist()), unit, f"rows {shift}")


def verdict(s: Setting, clause: mn.Clause, holds: bool, unit: float, text: str) -> Found:
    """Compare a verdict with the truth; a counterexample has to lie in the box and to satisfy the clause up to rounding."""
    flat = mn.Box(s.case.lower.reshape(1, -1), s.case.upper.reshape(1, -1))
    found = mn.verify(s.network, mn.Property((mn.Case(flat, (clause,)),)), backend=s.backend, time_limit=SECONDS)
    text = f"{text}: {found.status} by {found.stage}, exact {'sat' if holds else 'unsat'}, bound {found.bound / unit:.1e} {found.note}"
    if found.counterexample is None:
        return ("unknown" if found.status == "unknown" else "WRONG" if holds else "right"), text
    x = found.counterexample[None]
    y = s.exact.output(x)
    missed = max(product(row, y) - Fraction(float(right)) for row, right in zip(clause.matrix, clause.rhs, strict=True))
    return ("right" if s.inside(x) and missed <= ROUNDING * unit else "WRONG"), f"{text} missed {float(missed) / unit:.1e}"


def other_network(s: Setting) -> tuple[mn.Network, str]:
    """A network that is the same, the same in other units (of a chain), close, or different."""
    kind = str(s.rng.choice(["same", "units", "close", "far"]))
    size = {"close": 1e-4, "far": 0.3}.get(kind, 0.0)
    layers, scale, middle = [], None, ((s.case.lower + s.case.upper) / 2).reshape(-1)
    for node in s.network.nodes:
        layer = node.layer
        if isinstance(layer, mn.Dense):
            weight, bias = layer.weight.numpy(), layer.bias.numpy()
            if kind == "units" and s.case.family == "chain":
                weight = weight if scale is None else weight / scale
                scale = np.ones(len(bias)) if node is s.network.output else 10 ** s.rng.uniform(-3, 3, len(bias))
                layer = mn.Dense(weight * scale[:, None], bias * scale)
            elif size:
                changed = weight * (1 + size * s.rng.normal(size=weight.shape))
                moved = (changed - weight) @ middle if node is s.network.nodes[0] else 0.0  # a box off centre stays there
                layer = mn.Dense(changed, bias * (1 + size * s.rng.normal()) if np.isscalar(moved) else bias - moved)
        layers.append((node.name, layer, node.inputs))
    return mn.Network.build(s.network.input_shape, layers), kind


def both(first: mn.Network, second: mn.Network, last: mn.Layer) -> mn.Network:
    """Both networks side by side, and a layer that reads their outputs."""
    layers = []
    for side, network in (("a", first), ("b", second)):
        layers += [(f"{side}_{n.name}", n.layer, tuple(i if i == "input" else f"{side}_{i}" for i in n.inputs)) for n in network.nodes]
    return mn.Network.build(first.input_shape, [*layers, ("both", last, (f"a_{first.output.name}", f"b_{second.output.name}"))])


def largest_difference(s: Setting, second: mn.Network) -> Fraction:
    exact = Exact(both(s.network, second, mn.Add((1.0, -1.0))), s.case.lower, s.case.upper)
    return max(max(-low, high) for low, high in (exact.extremes(row) for row in np.eye(s.outputs)))


def rounding_of_constants(s: Setting, unit: float) -> Fraction:
    """How far a proven difference may be too small: 0, unless an output is a constant, which is what float64 computes."""
    constant = any(low == high for low, high in map(s.exact.extremes, np.eye(s.outputs)))
    return Fraction(1e-12 * unit) if constant else Fraction(0)


def agree(s: Setting) -> Iterator[Found]:
    """The largest difference of two networks, and whether it is within a number just above or below it."""
    second, kind = other_network(s)
    truth, unit = largest_difference(s, second), s.output_size
    for factor in (None, 0.9, 1.1):
        if factor is not None and truth <= 1e-9 * unit:
            continue
        within = None if factor is None else float(truth) * factor
        found = mn.agree(s.network, second, s.case.region, within=within, backend=s.backend, time_limit=SECONDS)
        text = f"{kind} {within}: {found.agree} [{found.largest}, {found.bound}] exact {float(truth)} unit {unit:.2g} {found.method}"
        limit = TOLERANCE * unit if within is None else within
        wrong = Fraction(found.bound) < truth - rounding_of_constants(s, unit)
        wrong |= Fraction(found.largest) > truth + Fraction(ROUNDING * unit)
        wrong |= (found.agree is True and truth > limit) or (within is not None and found.agree is False and truth <= within)
        if wrong:
            yield "WRONG", text
        elif within is None:
            yield ("right" if found.bound - found.largest <= TOLERANCE * unit else "wider"), text
        else:
            yield ("unknown" if found.agree is None else "right"), text


def classes(s: Setting) -> Iterator[Found]:
    """Whether two networks name the same class wherever both name one clearly."""
    second, kind = other_network(s)
    joint = Exact(both(s.network, second, mn.Concat()), s.case.lower, s.case.upper)
    sizes = [max(size_of(joint.extremes(row)) for row in np.eye(2 * s.outputs)[k * s.outputs :][: s.outputs]) for k in (0, 1)]
    found = mn.agree_on_class(s.network, second, s.case.region, backend=s.backend, time_limit=SECONDS)

    def differ(margin: float) -> bool:
        pairs = [(a, b) for a in range(s.outputs) for b in range(s.outputs) if a != b]
        return any(both_clear(s, joint, pair, [-margin * size for size in sizes]) for pair in pairs)

    text = f"{kind}: {found.agree} {found.method} sizes {sizes[0]:.2g} {sizes[1]:.2g}"
    if found.agree is None:
        yield "unknown", text
    else:
        right = not differ(1.001e-6) if found.agree else differ(-ROUNDING)
        yield ("right" if right else "WRONG"), text


def both_clear(s: Setting, joint: Exact, classes: tuple[int, int], right: list[float]) -> bool:
    """Whether somewhere each network's class is above all others, by a number per network that is given negated."""
    rows, ends = [], []
    for side, top in enumerate(classes):
        for k in range(s.outputs):
            if k != top:
                row = np.zeros(2 * s.outputs)
                row[side * s.outputs + k], row[side * s.outputs + top] = 1.0, -1.0
                rows.append(row)
                ends.append(right[side])
    return joint.holds_somewhere(np.stack(rows), ends)


def compress(s: Setting) -> Iterator[Found]:
    """The smaller network equals the given one up to 1e-6 of the outputs."""
    if s.case.family != "chain":
        return
    found = mn.compress(s.network, s.case.region, backend=s.backend, time_limit=SECONDS)
    truth, unit, checked = largest_difference(s, found.network), s.output_size, found.agreement
    kept = [(each.units, each.kept) for each in found.layers]
    text = f"{checked.agree} bound {checked.bound} exact {float(truth)} unit {unit:.2g} kept {kept} complete {found.complete}"
    wrong = Fraction(checked.bound) < truth - rounding_of_constants(s, unit) or (checked.agree and truth > 1.001e-6 * unit)
    yield ("WRONG" if wrong else "right" if checked.agree and found.complete else "wider"), text


def margin(s: Setting) -> Iterator[Found]:
    """The largest difference of another output over a random one."""
    label = int(s.rng.integers(s.outputs))
    ends = [s.exact.extremes(difference(s, other, label)) for other in range(s.outputs) if other != label]
    truth, unit = max(high for _, high in ends), max(map(size_of, ends))
    found = mn.maximum_margin(s.network, s.case.region, label, backend=s.backend, time_limit=SECONDS)
    text = f"[{found.lower}, {found.upper}] exact {float(truth)} unit {unit:.2g}"
    rounded = Fraction(1e-12 * s.output_size) if any(low == high for low, high in ends) else 0
    if Fraction(found.upper) < truth - rounded or Fraction(found.lower) > truth + Fraction(ROUNDING * s.output_size):
        yield "WRONG", text
    else:
        yield ("right" if found.gap <= TOLERANCE * unit else "wider"), text


def difference(s: Setting, one: int, other: int) -> Array:
    row = np.zeros(s.outputs)
    row[one], row[other] = 1.0, -1.0
    return row
