"""Questions about a random network whose exact answer is known, put to the library, and how its answer compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import linopy
import numpy as np
import xarray as xr

import mipnet as mn
from tests.scales.exact import Exact, Polytope, Region, satisfying
from tests.scales.nets import Case

Label = str
"""``right``; ``wider``: true, but not as close as was asked; ``unknown``; ``unverified``; ``refused (error)``; or ``WRONG``."""

ROUNDING = 1e-9
"""How far a forward pass in float64 may be from the exact value, relative to the largest value of the function over the box."""

SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    question: str
    backend: str
    label: Label
    detail: str


@dataclass(frozen=True)
class Setting:
    """The case, its exact regions, the backend and random numbers for the question."""

    case: Case
    exact: Exact
    backend: str
    rng: np.random.Generator

    @property
    def outputs(self) -> int:
        return int(np.prod(self.case.network.output_shape))

    def direction(self) -> np.ndarray:
        return self.rng.normal(size=self.outputs)

    def unit(self, low: Fraction, high: Fraction) -> float:
        """The largest absolute value of a function with these extremes."""
        return float(max(abs(low), abs(high))) or 1.0


def exact_value(s: Setting, weights: np.ndarray, x: np.ndarray) -> Fraction:
    return sum((Fraction(float(w)) * y for w, y in zip(weights, s.exact.output(x), strict=True)), Fraction(0))


def inside(s: Setting, x: np.ndarray) -> bool:
    return bool((x >= s.case.lower).all() and (x <= s.case.upper).all())


def close(a: float | Fraction, b: float | Fraction, within: float) -> bool:
    return abs(Fraction(a) - Fraction(b)) <= within


def bounds(s: Setting) -> Iterator[tuple[Label, str]]:
    """Bounds of every node hold, for the methods without and with a solver."""
    truth = s.exact.node_ranges()
    methods: dict[str, Callable[[], object]] = {
        name: (lambda name=name: mn.propagate(s.case.network, s.case.region, method=name)) for name in ("interval", "crown", "alpha")
    }
    methods |= {
        f"tighten {name}": (lambda name=name: mn.tighten(s.case.network, s.case.region, method=name, backend=s.backend, time_limit=SECONDS))
        for name in ("lp", "mip")
    }
    for name, run in methods.items():
        found, wrong, wide = run(), "", 0.0
        for node, ranges in truth.items():
            box = found.after[node]
            size = max((max(abs(low), abs(high)) for low, high in ranges), default=0)
            for k, (low, high) in enumerate(ranges):
                below, above = (float(end.reshape(-1)[k]) for end in (box.lower, box.upper))
                over = max(Fraction(below) - low, high - Fraction(above))
                if over > (0 if above > below else 1e-12 * size):
                    wrong = wrong or f"{name}: {node}[{k}] is [{float(low)}, {float(high)}], bounds [{below}, {above}], over {float(over / size):.1e}"
            if node == s.case.network.output.name and size:
                wide = max(float(max(low - Fraction(float(b)), Fraction(float(a)) - high) / size) for (low, high), b, a in zip(ranges, box.lower.reshape(-1), box.upper.reshape(-1), strict=True))
        yield ("WRONG" if wrong else "wider" if name == "tighten mip" and wide > 1e-3 else "right"), wrong or f"{name} {wide:.1e}"


def solve(s: Setting) -> Iterator[tuple[Label, str]]:
    """The smallest and the largest value of a linear function of the output."""
    w = s.direction()
    low, high = s.exact.extremes(w)
    unit = s.unit(low, high)
    for sense, truth in (("min", low), ("max", high)):
        encoding = mn.encode(s.case.network, s.case.region)
        dims = encoding.output.dims[1:]
        encoding.model.add_objective((encoding.output * xr.DataArray(w, dims=dims, coords={d: encoding.output.coords[d] for d in dims})).sum(), sense=sense)
        result = mn.solve(encoding, s.backend, time_limit=SECONDS)
        yield solved(s, result, truth, unit, 1.0 if sense == "min" else -1.0, lambda: exact_value(s, w, input_of(encoding, result)))


def input_of(encoding: mn.Encoding, result: mn.Result) -> np.ndarray:
    return encoding.value("input", result.point)


BOUND_TOLERANCE = 1e-6


def solved(s: Setting, result: mn.Result, truth: Fraction, unit: float, sign: float, attained: Callable[[], Fraction]) -> tuple[Label, str]:
    """Compare a result of `mipnet.solve` with the exact optimum; ``sign`` is 1 for a minimisation."""
    text = f"{result.status.value} {result.objective} bound {result.bound} exact {float(truth)} unit {unit:.2g} verified {result.verified}"
    over = sign * (result.bound - float(truth)) / unit
    text += f" over {over:.1e}"
    if over > BOUND_TOLERANCE:
        return "WRONG", text
    if result.objective is None:
        return ("WRONG" if result.status.value == "infeasible" else "unknown"), text
    if not result.verified:
        return "unverified", text
    if not close(result.objective, attained(), ROUNDING * unit):
        return "WRONG", text + f" attained {float(attained())}"
    off = sign * (result.objective - float(truth))
    if off < -BOUND_TOLERANCE * unit:
        return "WRONG", text
    if result.status.value == "optimal":
        allowed = 1e-4 * abs(result.objective) + 2 * BOUND_TOLERANCE * unit
        return ("WRONG" if off > allowed else "right"), text
    return ("wider" if off <= 1e-4 * unit else "unknown"), text


def reach(s: Setting) -> Iterator[tuple[Label, str]]:
    rows = np.stack([s.direction(), np.eye(s.outputs)[0]])
    found = mn.reach(s.case.network, s.case.region, rows, backend=s.backend, time_limit=SECONDS)
    for k, row in enumerate(rows):
        low, high = s.exact.extremes(row)
        unit = s.unit(low, high)
        for end, truth, sign in ((found.lowest[k], low, 1), (found.highest[k], high, -1)):
            text = f"[{end.bound}, {end.value}] exact {float(truth)} unit {unit:.2g} {end.method}"
            over = sign * (Fraction(end.bound) - truth)
            text += f" over {float(over) / unit:.1e}"
            if over > 0 or not inside(s, end.point[None]) or not close(end.value, exact_value(s, row, end.point[None]), ROUNDING * unit):
                yield "WRONG", text
            else:
                yield ("right" if -over <= 1.01e-4 * unit and end.gap <= 1.01e-4 * unit else "wider"), text


def verify(s: Setting) -> Iterator[tuple[Label, str]]:
    """Thresholds just inside and outside of the extremes; and a clause of several rows."""
    w = s.direction()
    low, high = s.exact.extremes(w)
    unit = s.unit(low, high)
    size = max(float(high - low), 1e-9 * unit)
    for share in (1e-2, 1e-4, 1e-6):
        for sign in (1, -1):
            for above in (True, False):  # w y >= b, and w y <= b
                b = float(high) + sign * share * size if above else float(low) - sign * share * size
                clause = mn.Clause(-w[None], np.array([-b])) if above else mn.Clause(w[None], np.array([b]))
                holds = Fraction(b) <= high if above else Fraction(b) >= low
                yield verdict(s, [clause], holds, unit, f"share {sign * share}", s.exact)
    rows = s.rng.normal(size=(2, s.outputs))
    point = s.rng.uniform(s.case.lower, s.case.upper)
    y = s.case.network.forward(point).reshape(-1)
    for shift in (1e-3, -1e-1):
        right = rows @ y + shift * unit
        yield verdict(s, [mn.Clause(rows, right)], s.exact.holds_somewhere(rows, right.tolist()), unit, f"rows {shift}", s.exact)


def verdict(s: Setting, clauses: list[mn.Clause], holds: bool, unit: float, text: str, exact: Exact) -> tuple[Label, str]:
    flat = mn.Box(s.case.lower.reshape(1, -1), s.case.upper.reshape(1, -1))
    found = mn.verify(s.case.network, mn.Property((mn.Case(flat, tuple(clauses)),)), backend=s.backend, time_limit=SECONDS)
    text = f"{text}: {found.status} by {found.stage}, exact {'sat' if holds else 'unsat'}, bound {found.bound / unit:.1e} units {found.note}"
    if found.status == "unsat":
        return ("WRONG" if holds else "right"), text
    if found.status == "unknown":
        return "unknown", text
    x = found.counterexample[None]
    y = exact.output(x)
    missed = min(
        max(sum((Fraction(float(a)) * v for a, v in zip(row, y, strict=True)), Fraction(0)) - Fraction(float(b)) for row, b in zip(c.matrix, c.rhs, strict=True))
        for c in clauses
    )
    if not inside(s, x) or missed > ROUNDING * unit:
        return "WRONG", text + f" missed {float(missed) / unit:.1e}"
    return "right", text


def other_network(s: Setting) -> tuple[mn.Network, str]:
    """A network that is close to, equal to or different from that of the case."""
    kind = s.rng.choice(["same", "units", "close", "far"])
    network, size = s.case.network, {"close": 1e-4, "far": 0.3}.get(str(kind), 0.0)
    layers = []
    scale = np.ones(0)
    for node in network.nodes:
        layer = node.layer
        if isinstance(layer, mn.Dense) and kind == "units" and s.case.family == "chain":
            weight, bias = layer.weight.numpy().copy(), layer.bias.numpy().copy()
            weight = weight / scale if scale.size else weight
            last = node is network.output
            scale = np.ones(0) if last else 10 ** s.rng.uniform(-3, 3, len(bias))
            layer = mn.Dense(weight if last else weight * scale[:, None], bias if last else bias * scale)
        elif isinstance(layer, mn.Dense) and size:
            weight = layer.weight.numpy() * (1 + size * s.rng.normal(size=layer.weight.shape))
            # the bias follows the weights, so that a box off centre stays off centre
            layer = mn.Dense(weight, layer.bias.numpy() * (1 + size * s.rng.normal()) if node is not network.nodes[0] else layer.bias.numpy() - (weight - layer.weight.numpy()) @ ((s.case.lower + s.case.upper) / 2).reshape(-1))
        layers.append((node.name, layer, node.inputs))
    return mn.Network.build(network.input_shape, layers), str(kind)


def both(first: mn.Network, second: mn.Network, last: mn.Layer) -> mn.Network:
    layers = []
    for side, network in (("a", first), ("b", second)):
        layers += [(f"{side}_{n.name}", n.layer, tuple(i if i == "input" else f"{side}_{i}" for i in n.inputs)) for n in network.nodes]
    return mn.Network.build(first.input_shape, [*layers, ("both", last, (f"a_{first.output.name}", f"b_{second.output.name}"))])


def largest_difference(s: Setting, first: mn.Network, second: mn.Network) -> tuple[Fraction, float]:
    """The exact largest difference of an output, and the size of the outputs."""
    exact = Exact(both(first, second, mn.Add((1.0, -1.0))), s.case.lower, s.case.upper)
    ends = [exact.extremes(row) for row in np.eye(s.outputs)]
    size = max(s.unit(*s.exact.extremes(row)) for row in np.eye(s.outputs))
    return max(max(-low, high) for low, high in ends), size


def agree(s: Setting) -> Iterator[tuple[Label, str]]:
    second, kind = other_network(s)
    truth, unit = largest_difference(s, s.case.network, second)
    asked: list[float | None] = [None, *(float(truth) * factor for factor in (0.9, 1.1) if float(truth) > 1e-9 * unit)]
    for within in asked:
        found = mn.agree(s.case.network, second, s.case.region, within=within, backend=s.backend, time_limit=SECONDS)
        text = f"{kind} {within}: {found.agree} [{found.largest}, {found.bound}] exact {float(truth)} unit {unit:.2g} {found.method}"
        if Fraction(found.bound) < truth or Fraction(found.largest) > truth + Fraction(ROUNDING * unit):
            yield "WRONG", text
        elif within is None:
            yield ("right" if found.bound - found.largest <= 1.01e-4 * unit else "wider"), text
        elif found.agree is not None and found.agree != (truth <= Fraction(within)):
            yield "WRONG", text
        else:
            yield ("unknown" if found.agree is None else "right"), text


def classes(s: Setting) -> Iterator[tuple[Label, str]]:
    second, kind = other_network(s)
    exact = Exact(both(s.case.network, second, mn.Concat()), s.case.lower, s.case.upper)
    n = s.outputs
    size = max(s.unit(*s.exact.extremes(row)) for row in np.eye(n))
    found = mn.agree_on_class(s.case.network, second, s.case.region, backend=s.backend, time_limit=SECONDS)

    def differ(margin: float) -> bool:
        for a in range(n):
            for b in range(n):
                rows = [row for side, top in ((0, a), (1, b)) for row in top_rows(n, side, top)]
                if a != b and exact.holds_somewhere(np.stack(rows), [-margin] * len(rows)):
                    return True
        return False

    text = f"{kind}: {found.agree} {found.method} size {size:.2g}"
    if found.agree is None:
        yield "unknown", text
    elif found.agree is True:
        yield ("WRONG" if differ(1.001e-6 * size) else "right"), text
    else:
        yield ("right" if differ(-ROUNDING * size) else "WRONG"), text


def top_rows(n: int, side: int, top: int) -> Iterator[np.ndarray]:
    """Rows of both outputs that are negative where one class is above all others in one of the networks."""
    for k in range(n):
        if k != top:
            row = np.zeros(2 * n)
            row[side * n + k], row[side * n + top] = 1.0, -1.0
            yield row


def compress(s: Setting) -> Iterator[tuple[Label, str]]:
    if s.case.family != "chain":
        return
    found = mn.compress(s.case.network, s.case.region, backend=s.backend, time_limit=SECONDS)
    truth, unit = largest_difference(s, s.case.network, found.network)
    kept = [(each.units, each.kept) for each in found.layers]
    text = f"{found.agreement.agree} bound {found.agreement.bound} exact {float(truth)} unit {unit:.2g} kept {kept} complete {found.complete}"
    if Fraction(found.agreement.bound) < truth or (found.agreement.agree and truth > Fraction(1e-6 * unit)):
        yield "WRONG", text
    else:
        yield ("right" if found.agreement.agree and found.complete else "wider"), text


def distortion(s: Setting) -> Iterator[tuple[Label, str]]:
    if s.case.family not in ("dense", "chain", "residual") or s.case.lower.size > 2:
        return
    label = int(s.case.network.forward((s.case.lower + s.case.upper) / 2).reshape(-1).argmax())
    image = s.rng.uniform(s.case.lower, s.case.upper)
    label = int(s.case.network.forward(image).reshape(-1).argmax())
    free = s.case.lower < s.case.upper
    width = float((s.case.upper - s.case.lower)[free].max())
    clip = None if s.rng.uniform() < 0.5 else (float(s.case.lower.min()), float(s.case.upper.max()))
    for norm in ("linf", "l1", "l2"):
        found = mn.minimum_distortion(s.case.network, image, label, upper=width, norm=norm, clip=clip, backend=s.backend, time_limit=SECONDS)
        truth = nearest(s, image, label, width, norm, clip)
        text = f"{norm} [{found.lower}, {found.upper}] exact {truth} within {width:.2g}"
        if truth is None:
            wrong = found.upper < math.inf
            yield ("WRONG" if wrong else "right" if found.lower >= 0.999 * width else "wider"), text
            continue
        slack = 1e-9 * width
        if found.lower > truth * (1 + 1e-12) or (found.upper < truth - slack):
            yield "WRONG", text
        else:
            yield ("right" if found.upper - found.lower <= 1.01e-3 * max(found.upper, 1e-9 * width) else "wider"), text


def nearest(s: Setting, image: np.ndarray, label: int, radius: float, norm: str, clip: tuple[float, float] | None) -> float | None:
    """The distance of the nearest input at which another class is at least as high as the label; None if there is none."""
    low, high = image - radius, image + radius
    if clip is not None:
        low, high = np.maximum(low, clip[0]), np.minimum(high, clip[1])
    exact = Exact(s.case.network, low, high)
    parts = [Polytope.cube(len(exact.free))]
    (centre, exponent), x = dyadic_of(image), exact.x
    unit = min(exponent, x.exponent)
    away = [(*row[:-1], row[-1] - c * (1 << (exponent - unit))) for row, c in zip(x.at(unit), centre, strict=True)]
    folds = list(away)
    if norm == "linf":
        folds += [tuple(a + sign * b for a, b in zip(away[i], away[j], strict=True)) for i in range(len(away)) for j in range(i) for sign in (1, -1)]
    for row in folds if norm != "l2" else ():
        parts = [side for part in parts for _, side in part.sides(row)]
    best: float | None = None
    for region in exact.regions(parts):
        for other in range(s.outputs):
            if other == label:
                continue
            row = np.zeros((1, s.outputs))
            row[0, label], row[0, other] = 1.0, -1.0
            part = satisfying(region, region.y, row, [0.0])
            if part is None:
                continue
            points = [[Fraction(c.value(r), c.numbers[-1]) * Fraction(2) ** unit for r in away] for c in part.corners]
            found = min(distance(points, norm), key=float)
            best = float(found) if best is None else min(best, float(found))
    if best is None:
        return None
    best = math.sqrt(best) if norm == "l2" else best
    return best if best <= radius else None


def dyadic_of(values: np.ndarray) -> tuple[list[int], int]:
    from tests.scales.exact import dyadic

    return dyadic(values)


def distance(points: list[list[Fraction]], norm: str) -> Iterator[Fraction]:
    """The distances of corners from 0; in the Euclidean norm the squares of those of the segments between them."""
    for p in points:
        yield max(map(abs, p)) if norm == "linf" else sum(map(abs, p), Fraction(0)) if norm == "l1" else sum((a * a for a in p), Fraction(0))
    if norm == "l2":
        inside_all = len(points) > 2 and contains_origin(points)
        if inside_all:
            yield Fraction(0)
        for k, p in enumerate(points):
            for q in points[:k]:
                d = [b - a for a, b in zip(p, q, strict=True)]
                long = sum((a * a for a in d), Fraction(0))
                t = -sum((a * b for a, b in zip(p, d, strict=True)), Fraction(0)) / long if long else Fraction(0)
                if 0 < t < 1:
                    yield sum(((a + t * b) ** 2 for a, b in zip(p, d, strict=True)), Fraction(0))


def contains_origin(points: list[list[Fraction]]) -> bool:
    """Whether 0 lies in the convex hull of points of the plane: in the triangle of some three of them."""
    from itertools import combinations

    for a, b, c in combinations(points, 3):
        turns = [p[0] * q[1] - p[1] * q[0] for p, q in ((a, b), (b, c), (c, a))]
        if min(turns) >= 0 or max(turns) <= 0:
            return True
    return False


def margin(s: Setting) -> Iterator[tuple[Label, str]]:
    label = int(s.rng.integers(s.outputs))
    rows = []
    for other in range(s.outputs):
        if other != label:
            row = np.zeros(s.outputs)
            row[other], row[label] = 1.0, -1.0
            rows.append(row)
    ends = [s.exact.extremes(row) for row in rows]
    truth = max(high for _, high in ends)
    unit = max(s.unit(*end) for end in ends)
    found = mn.maximum_margin(s.case.network, s.case.region, label, backend=s.backend, time_limit=SECONDS)
    text = f"[{found.lower}, {found.upper}] exact {float(truth)} unit {unit:.2g}"
    if Fraction(found.upper) < truth or Fraction(found.lower) > truth + Fraction(ROUNDING * unit):
        yield "WRONG", text
    else:
        yield ("right" if found.gap <= 1.01e-4 * unit else "wider"), text


def embedding(s: Setting) -> Iterator[tuple[Label, str]]:
    """A user's model: inputs that are its variables, a row of its own on them, a price, and a switch that relaxes the row."""
    if s.case.family == "image":
        return
    g, low, high = s.rng, s.case.lower.reshape(-1), s.case.upper.reshape(-1)
    free = s.exact.free
    width = (high - low)[free]
    a, w = g.normal(size=len(free)) / width, s.direction()
    centre = ((low + high) / 2)[free]
    right = float(a @ centre + 0.1 * g.normal())
    unit = s.unit(*s.exact.extremes(w))
    price, fee = float(g.normal() * unit), float(abs(g.normal()) * 0.3 * unit)
    relief = float(abs(g.normal()) * 0.3)
    price_rate = price * a / 2
    model = linopy.Model()
    places = {"i": np.arange(len(low))}
    x = model.add_variables(xr.DataArray(low, places), xr.DataArray(high, places), name="x")
    on = model.add_variables(binary=True, name="on")
    own = x.isel(i=free)
    rows = {"i": np.array(free)}
    model.add_constraints((own * xr.DataArray(a, rows)).sum() - relief * on <= right, name="own")
    encoding = mn.add_network(model, s.case.network, x)
    dims = encoding.output.dims[1:]
    y = (encoding.output * xr.DataArray(w, dims=dims, coords={d: encoding.output.coords[d] for d in dims})).sum()
    model.add_objective(y + (own * xr.DataArray(price_rate, rows)).sum() + fee * on, sense="min")
    best: Fraction | None = None
    for switch in (0, 1):
        for region in s.exact.all:
            part = satisfying(region, inputs_of(s), a[None], [Fraction(right) + switch * Fraction(relief)])
            if part is None:
                continue
            total = joined_value(s, region, w, price_rate)
            ends = [Fraction(c.value(total[0]), c.numbers[-1]) * Fraction(2) ** total[1] for c in part.corners]
            value = min(ends) + switch * Fraction(fee)
            best = value if best is None else min(best, value)
    result = mn.solve(model, s.backend, time_limit=SECONDS)
    size = max(unit, float(np.abs(price_rate * np.maximum(abs(low[free]), abs(high[free]))).max()), fee)
    if best is None:
        yield ("right" if result.status.value == "infeasible" else "WRONG" if result.verified else "unknown"), f"infeasible: {result.status.value}"
        return

    def attained() -> Fraction:
        point = input_of(encoding, result)
        value = exact_value(s, w, point)
        prices = sum((Fraction(float(p)) * Fraction(float(v)) for p, v in zip(price_rate, point.reshape(-1)[free], strict=True)), Fraction(0))
        return value + prices + Fraction(fee) * round(float(result.x["on"]))

    yield solved(s, result, best, size, 1.0, attained)


def inputs_of(s: Setting):
    return s.exact.x.take(s.exact.free, (len(s.exact.free),))


def joined_value(s: Setting, region: Region, w: np.ndarray, rate: np.ndarray):
    from tests.scales.exact import added

    total = added([region.y.take(range(len(region.y.rows)), ()).dense(w[None], None), inputs_of(s).dense(rate[None], None)])
    return total.rows[0], total.exponent


QUESTIONS: dict[str, Callable[[Setting], Iterator[tuple[Label, str]]]] = {
    each.__name__: each for each in (bounds, solve, reach, verify, agree, classes, compress, distortion, margin, embedding)
}


def ask(case: Case, names: list[str] | None = None, backends: tuple[str, ...] = ("highs", "scip")) -> Iterator[Answer]:
    """Put every question to every backend."""
    exact = Exact(case.network, case.lower, case.upper)
    for number, (name, question) in enumerate(QUESTIONS.items()):
        if names is not None and name not in names:
            continue
        for backend in backends:
            setting = Setting(case, exact, backend, np.random.default_rng([case.seed, 1, number]))
            try:
                for label, detail in question(setting):
                    yield Answer(name, backend, label, detail)
            except mn.MipnetError as error:
                yield Answer(name, backend, f"refused ({type(error).__name__})", str(error))
            except Exception as error:  # noqa: BLE001 - a traceback is a wrong answer, and must not end the run
                yield Answer(name, backend, "WRONG", f"traceback {error!r}")
