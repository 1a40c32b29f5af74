"""`Polytope` and `ConvexHull`: input sets beyond boxes and balls, with names of their features where these were given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from mipnet.arrays import Array, Mask
from mipnet.errors import DataError, suggest_keywords
from mipnet.network.given_arrays import AXIS_WORDS, as_labelled, in_label_order, matched, numbers, spread
from mipnet.network.named_inputs import Names, in_input_order, names_of_inputs
from mipnet.network.polytopes import HalfSpaces, Hull
from mipnet.network.sets import Box

BOX_MARGIN = 1e-6
"""By how much the box of a polytope is larger than the optima of its linear programs, relative to 1 + their sizes."""

FEATURE_AXIS_WORDS = ("feature", "features", "unit", "units", "input", "inputs")
"""What the axis of the features may be called; a name may begin with other words, as in ``input_unit``."""


@suggest_keywords
def Polytope(  # noqa: N802  (reads as a type where it is used)
    matrix: ArrayLike, rhs: ArrayLike, lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf
) -> Box:
    """Return all x with ``matrix @ x <= rhs`` and ``lower <= x <= upper`` as an input set, for inputs with one axis.

        mn.Polytope([[1, 1]], [1], lower=0)                                       # x + y <= 1, x >= 0, y >= 0
        mn.Polytope(pd.DataFrame({"age": [1, -1], "income": [0, 1]}), [65, 40])    # rows in the names of the features

    Parameters
    ----------
    matrix, rhs
        Shapes ``(rows, inputs)`` and ``(rows,)``.  A labelled matrix (a DataFrame with features as columns, or a DataArray) gives names to
        the features; they are matched with `Network.input_names` by label.  If ``rhs`` is labelled as well, rows are aligned by label.
    lower, upper
        A number, or one number per input, by label if these and the columns of the matrix have names; infinite where there is no bound.

    The ends of the set are those of the polytope, by two linear programs per input, moved outwards by `BOX_MARGIN`.  Raises `DataError` for
    shapes that do not fit, and if the polytope is empty or has no end in some input.
    """
    a, names, labelled = _table(matrix, "the matrix of the polytope", rhs)
    right = as_labelled(rhs, "row")
    if right is not None and labelled is not None and right.ndim == 1 and right.dims[0] in right.coords:
        rows = labelled.rename({labelled.dims[0]: right.dims[0]}) if right.dims[0] not in labelled.dims else labelled
        if right.dims[0] in rows.coords:
            right = matched(right, rows.isel({rows.dims[1]: 0}, drop=True), "the matrix and the right-hand side")
    b = np.array(numbers(rhs if right is None else right.values, "the right-hand side of the polytope"), dtype=np.float64)
    if b.shape != (len(a),):
        raise DataError(f"the matrix has shape {a.shape} and the right-hand side {b.shape}; expected (rows, inputs) and (rows,)")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("the polytope holds NaN or infinite numbers; expected finite ones, and leave a row out that bounds nothing")
    ends = [_end(end, side, a.shape[1], names) for end, side in ((lower, "lower"), (upper, "upper"))]
    if (ends[0] > ends[1]).any():
        raise DataError(f"the polytope is empty: lower > upper in {np.count_nonzero(ends[0] > ends[1])} places")
    low, high, inside = _box(a, b, ends[0], ends[1], names)
    return Box(low[None], high[None], polytope=HalfSpaces(a, b, inside, input_names=names))


@suggest_keywords
def ConvexHull(points: ArrayLike, enlarge: float | ArrayLike = 0.0) -> Box:  # noqa: N802  (reads as a type where it is used)
    """Return the convex hull of points as an input set, and all x within ``enlarge`` of it: the trust region of data.

        mn.ConvexHull(training_data)                                  # a DataFrame: its columns are the features
        mn.ConvexHull(training_data, enlarge=0.05 * training_data.std())

    It is the set of all x with::

        x = sum_k w_k points_k + s,   w >= 0,   sum_k w_k = 1,   |s_i| <= enlarge_i

    (Maragno et al., "Mixed-Integer Optimization with Constraint Learning", arXiv:2111.04469).  In a program it takes
    one variable per point and two rows or fewer per input, also in high dimensions: the facets are never computed.

    Parameters
    ----------
    points
        Shape ``(points, *input_shape)``.  A DataFrame, or a DataArray, gives names to the features, as for `Polytope`.
    enlarge
        A number of at least 0, or one per feature, in the units of the inputs.
    """
    given, names, labelled = _table(points, "the array of points", None)
    if not given.size:
        raise DataError(f"the array of points has shape {given.shape}; expected at least one point, (points, *shape of one input)")
    flat = given.reshape(len(given), -1)
    if not np.isfinite(flat).all():
        raise DataError(f"the points hold {np.count_nonzero(~np.isfinite(flat))} NaN or infinite numbers; expected finite ones")
    reach = _enlargement(enlarge, flat.shape[1], labelled, given.shape[1:])
    hull = Hull(flat, reach, input_names=names)
    low, high = (end.reshape(1, *given.shape[1:]) for end in hull.ends)
    return Box(low, high, polytope=hull)


def _table(given: Any, what: str, rows: Any) -> tuple[Array, tuple[str, ...], Any]:
    """Return an array with one row per point or half-space, the names of its features, and it as a labelled array if it is one."""
    labelled = as_labelled(given)
    if labelled is None:
        array = np.array(numbers(given, what), dtype=np.float64)
        if array.ndim < 2 or (rows is not None and array.ndim != 2):
            raise DataError(f"{what} has shape {array.shape}; expected two axes, the second one of the inputs")
        return array, (), None
    if labelled.ndim != 2:
        return np.array(numbers(labelled, what), dtype=np.float64), (), None
    labelled = labelled.transpose(*_rows_first(labelled, what, rows))
    labelled = in_label_order(labelled, what, dims=[labelled.dims[1]])
    features = labelled.indexes.get(labelled.dims[1])
    named = features is not None and all(isinstance(each, str) for each in features)
    if named and features is not None and not features.is_unique:
        raise DataError(f"{what} has a feature twice; expected a name of its own for each")
    values = np.array(numbers(labelled.values, what), dtype=np.float64)
    return values, tuple(map(str, features)) if named and features is not None else (), labelled


def _rows_first(labelled: Any, what: str, rows: Any) -> tuple[str, str]:
    """Return the dimension of the rows or points, and that of the features; raises `DataError` if the names leave a choice."""
    one, other = map(str, labelled.dims)
    right = as_labelled(rows, "row") if rows is not None else None
    if right is not None and right.ndim == 1 and right.dims[0] in labelled.dims:
        return (one, other) if right.dims[0] == one else (other, one)
    features = [dim for dim in (one, other) if dim.lower().rpartition("_")[2] in FEATURE_AXIS_WORDS]
    points = [dim for dim in (one, other) if dim.lower() in (*AXIS_WORDS[0], "row", "rows", "point", "points", "constraint")]
    if len(features) == 1 or len(points) == 1:
        last = features[0] if len(features) == 1 else one if points[0] == other else other
        return (one, other) if last == other else (other, one)
    raise DataError(f"{what} has dimensions ({one}, {other}); call that of the features `feature`, or the other one `row` or `sample`")


def _end(given: Any, side: str, inputs: int, names: Names) -> Array:
    what = f"the {side} end of the polytope"
    end = in_input_order(np.array(numbers(given, what), dtype=np.float64), names_of_inputs(given, what), names, what)
    if end.shape not in ((), (inputs,)):
        raise DataError(f"the {side} end of the polytope has shape {end.shape}; expected a number, or one for each of {inputs} inputs")
    if np.isnan(end).any():
        raise DataError(f"the {side} end of the polytope holds NaN; expected numbers, or infinity where there is no bound")
    return np.broadcast_to(end, (inputs,)).copy()


def _enlargement(given: Any, inputs: int, labelled: Any, shape: tuple[int, ...]) -> Array:
    own = as_labelled(given)
    if own is not None and labelled is not None and own.ndim == 1:
        feature = labelled.dims[1]
        given = spread(labelled.isel({labelled.dims[0]: 0}, drop=True), own.rename({own.dims[0]: feature}), "the points and `enlarge`")[1]
    found = np.array(numbers(given, "`enlarge`"), dtype=np.float64)
    if found.shape not in ((), shape, (inputs,)):
        raise DataError(f"`enlarge` has shape {found.shape}; expected a number, or one for each of {inputs} inputs")
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise DataError(f"`enlarge` holds {float(found.min())}; expected finite numbers of at least 0")
    return np.broadcast_to(found.reshape(-1) if found.ndim else found, (inputs,)).copy()


def _box(a: Array, b: Array, lower: Array, upper: Array, names: tuple[str, ...]) -> tuple[Array, Array, Array]:
    """Return the smallest and the largest value of each input, moved outwards, and a point of the set."""
    low, high, found = lower.copy(), upper.copy(), list[Array]()
    used: Mask = (a != 0).any(axis=0)
    size = np.abs(a).sum(axis=1)
    size[size == 0] = 1.0
    scaled, right, limits = a / size[:, None], b / size, list(zip(lower, upper, strict=True))
    for k in range(a.shape[1]):
        called = f"`{names[k]}`" if names else str(k)
        for sign, end, side in ((1.0, low, "lower"), (-1.0, high, "upper")):
            if not used[k] and np.isfinite(end[k]) and found:
                continue
            cost = np.zeros(a.shape[1])
            cost[k] = sign
            solved = linprog(cost, A_ub=scaled, b_ub=right, bounds=limits, method="highs")
            if solved.status == 2:
                raise DataError("the polytope is empty: no x satisfies all rows and bounds")
            if solved.status != 0 or solved.x is None or solved.fun is None:
                raise DataError(f"the polytope has no {side} end in input {called}; give `lower` and `upper`, or rows that bound it")
            found.append(solved.x)
            value = sign * float(solved.fun)
            margin = BOX_MARGIN * (1 + abs(value))
            end[k] = max(end[k], value - margin) if sign > 0 else min(end[k], value + margin)
    return low, high, _inside(scaled, right, lower, upper, np.mean(found, axis=0))


def _inside(a: Array, b: Array, lower: Array, upper: Array, middle: Array) -> Array:
    """Return a point of the set: the mean of some of its ends, moved into it where a solver's tolerances left it outside."""
    spaces = HalfSpaces(a, b, middle)
    return np.asarray(spaces.nearest(middle[None], lower[None], upper[None])[0])
