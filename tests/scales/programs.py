"""Questions about bounds and programs: `propagate`, `tighten`, `encode`, `add_network` and `solve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import linopy
import numpy as np
import xarray as xr

import mipnet as mn
from mipnet.arrays import Array
from tests.scales.exact import Region, Values, added, satisfying
from tests.scales.setting import ROUNDING, SECONDS, SOLVER_TOLERANCE, Found, Setting, size_of, weighted


def bounds(s: Setting) -> Iterator[Found]:
    """Bounds of every node hold, those of a solver too; at the output, those of a solver are close.

    An element that is constant is what float64 computes, and so are the ends of a maximum with it.
    """
    truth = s.exact.node_ranges()
    constant = any(low == high for ranges in truth.values() for low, high in ranges)
    for name in ("interval", "crown", "alpha", "lp", "mip"):
        if name in ("lp", "mip"):
            found = mn.tighten(s.network, s.case.region, method=name, backend=s.backend, time_limit=SECONDS)
        else:
            found = mn.propagate(s.network, s.case.region, method=name)
        wrong, wide = "", 0.0
        for node, ranges in truth.items():
            box = found.after[node]
            size = max(size_of(ends) for ends in ranges)
            for (low, high), below, above in zip(ranges, box.lower.reshape(-1).tolist(), box.upper.reshape(-1).tolist(), strict=True):
                over = max(Fraction(below) - low, high - Fraction(above))
                if over > (1e-12 * size if constant else 0):
                    wrong = f"{name}: {node} is [{float(low)}, {float(high)}], bounds [{below}, {above}], over {float(over) / size:.1e}"
                if node == s.network.output.name:
                    wide = max(wide, float(-over) / size)
        label = "WRONG" if wrong else "wider" if name == "mip" and wide > 1e-3 else "right"
        yield label, wrong or f"{name} wider by {wide:.1e}"


def solve(s: Setting) -> Iterator[Found]:
    """The smallest and the largest value of a linear function of the output."""
    w = s.direction()
    ends = s.exact.extremes(w)
    for sense, truth in zip(("min", "max"), ends, strict=True):
        encoding = mn.encode(s.network, s.case.region)
        encoding.model.add_objective(weighted(encoding.output, w), sense=sense)
        result = mn.solve(encoding, s.backend, time_limit=SECONDS)
        sign = 1.0 if sense == "min" else -1.0
        yield solved(result, truth, size_of(ends), sign, lambda e=encoding, r=result: s.value(w, e.value("input", r.point)))


def solved(result: mn.Result, truth: Fraction, unit: float, sign: float, attained: Callable[[], Fraction]) -> Found:
    """Compare a result of `mipnet.solve` with the exact optimum; ``sign`` is 1 for a minimisation."""
    text = f"{result.status.value} {result.objective} bound {result.bound} exact {float(truth)} unit {unit:.2g} verified {result.verified}"
    over = sign * (result.bound - float(truth)) / unit
    if over > SOLVER_TOLERANCE:
        return "WRONG", f"{text} over {over:.1e}"
    if result.objective is None:
        return ("WRONG" if result.status.value == "infeasible" else "unknown"), text
    if not result.verified:
        return "unverified", text
    if abs(Fraction(result.objective) - attained()) > ROUNDING * unit:
        return "WRONG", f"{text} attained {float(attained())}"
    off = sign * (result.objective - float(truth))
    if off < -SOLVER_TOLERANCE * unit:
        return "WRONG", text
    if result.status.value == "optimal":
        return ("WRONG" if off > 1e-4 * abs(result.objective) + 2 * SOLVER_TOLERANCE * unit else "right"), text
    return ("wider" if off <= 1e-4 * unit else "unknown"), text


def embedding(s: Setting) -> Iterator[Found]:
    """A user's model: inputs that are its variables, a row on them in a unit of its own, a price per input, and a switch for a fee."""
    if s.case.family == "image":
        return
    g, low, high, free = s.rng, s.case.lower.reshape(-1), s.case.upper.reshape(-1), s.exact.free
    a, w = g.normal(size=len(free)) / (high - low)[free], s.direction()
    unit = size_of(s.exact.extremes(w))
    right, relief = float(a @ ((low + high) / 2)[free] + 0.1 * g.normal()), 0.3 * abs(float(g.normal()))
    price, fee = float(g.normal()) * unit * a / 2, 0.3 * abs(float(g.normal())) * unit
    factor = float(2.0 ** g.integers(-13, 14))
    model, places, rows = linopy.Model(), {"i": np.arange(len(low))}, {"i": np.array(free)}
    x = model.add_variables(xr.DataArray(low, places), xr.DataArray(high, places), name="x")
    on, own = model.add_variables(binary=True, name="on"), x.isel(i=free)
    model.add_constraints((own * xr.DataArray(factor * a, rows)).sum() - factor * relief * on <= factor * right, name="own")
    encoding = mn.add_network(model, s.network, x)
    model.add_objective(weighted(encoding.output, w) + (own * xr.DataArray(price, rows)).sum() + fee * on, sense="min")
    result = mn.solve(model, s.backend, time_limit=SECONDS)
    best = cheapest(s, a, (Fraction(right), Fraction(relief)), w, price, fee)
    if best is None:
        label = "right" if result.status.value == "infeasible" else "WRONG" if result.verified else "unknown"
        yield label, f"{result.status.value}, exact infeasible"
        return

    def attained() -> Fraction:
        point = encoding.value("input", result.point)
        prices = sum((Fraction(float(p)) * Fraction(float(v)) for p, v in zip(price, point.reshape(-1)[free], strict=True)), Fraction(0))
        return s.value(w, point) + prices + Fraction(fee) * round(float(result.x["on"]))

    size = max(unit, float(np.abs(price * np.maximum(abs(low), abs(high))[free]).max()), fee)
    yield solved(result, best, size, 1.0, attained)


def cheapest(s: Setting, a: Array, right: tuple[Fraction, Fraction], w: Array, price: Array, fee: float) -> Fraction | None:
    """The exact optimum of `embedding`: None if it is infeasible."""
    best = []
    inputs = s.exact.x.take(s.exact.free, (len(s.exact.free),))
    for switch in (0, 1):
        for region in s.exact.all:
            part = satisfying(region, inputs, a[None], [right[0] + switch * right[1]])
            if part is not None:
                total = total_cost(region, inputs, w, price)
                ends = [Fraction(c.value(total.rows[0]), c.numbers[-1]) * Fraction(2) ** total.exponent for c in part.corners]
                best.append(min(ends) + switch * Fraction(fee))
    return min(best, default=None)


def total_cost(region: Region, inputs: Values, w: Array, price: Array) -> Values:
    return added([region.y.flat.dense(w[None], None), inputs.dense(price[None], None)])
