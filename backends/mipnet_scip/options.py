"""SCIP's parameters, with every name, type and value checked; its limits; and its statuses."""

from __future__ import annotations

from typing import Any

from mipnet.backend import Limits, Options, Program, Status, ToleranceKind
from mipnet.backend.checks import unknown_option
from mipnet.errors import OptionError
from mipnet_scip.native import SCIP_INFINITY

SCIP_LIMIT_PARAMETERS = {
    "limits/time": "time",
    "limits/gap": "gap",
    "limits/absgap": "gap_abs",
    "limits/nodes": "nodes",
    "limits/totalnodes": "nodes",
    "limits/memory": "memory",
    "limits/dual": "bound_stop",
    "limits/primal": "objective_stop",
}
"""Parameters that every solve sets from its `Limits`, with the field that sets each."""

SCIP_STATUSES: dict[str, Status | None] = {
    "optimal": Status.OPTIMAL,
    "gaplimit": Status.OPTIMAL,
    "infeasible": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
    "timelimit": Status.TIME_LIMIT,
    "nodelimit": Status.NODE_LIMIT,
    "totalnodelimit": Status.NODE_LIMIT,
    "memlimit": Status.MEMORY_LIMIT,
    "primallimit": Status.TARGET,
    "duallimit": Status.TARGET,
    "stallnodelimit": Status.STALLED,
    "sollimit": Status.STALLED,
    "bestsollimit": Status.STALLED,
    "restartlimit": Status.STALLED,
    "userinterrupt": None,
}
"""The status for each status of SCIP; None for a solve that was interrupted."""

TARGET_UNSET = 1e99
"""SCIP's default of limits/dual and limits/primal, which means no limit."""


NO_CUT_SEPARATION: Options = {"separating/maxrounds": 0, "separating/maxroundsroot": 0}
"""Parameters for networks in a user's model: on a dispatch of 24 hours, the separation of cuts took all of the time."""


SCIP_FINE_TOLERANCE = 1e-9
"""Tolerances of a program that needs finer ones than SCIP's own; SCIP treats differences of 1e-9 as none."""

SCIP_FINE_PARAMETERS: Options = {"numerics/feastol": SCIP_FINE_TOLERANCE, "numerics/dualfeastol": SCIP_FINE_TOLERANCE}


SCIP_TOLERANCE_PARAMETERS: dict[str, ToleranceKind] = {
    "numerics/feastol": "rows",
    "numerics/dualfeastol": "reduced costs",
    "numerics/epsilon": "both",
    "numerics/sumepsilon": "both",
}
"""Parameters that set tolerances."""


def set_options(model: Any, options: Options, program: Program) -> None:
    """Set the given parameters; raises `OptionError` for unknown names and for values that SCIP would change or reject.

    Some parameters have other defaults than SCIP's, which depend on the program.
    """
    model.setParam("misc/catchctrlc", False)  # SCIP would print to standard output; `run_in_thread` handles Ctrl-C
    if program.convex:
        model.setParam("heuristics/nlpdiving/freq", -1)  # in SCIP 10.0.2 it corrupts memory on log-sum-exp; an option can turn it on
    if program.sos1:
        model.setParam("constraints/SOS1/sepafreq", -1)  # in SCIP 10.0.2 its bound cuts remove optimal points; an option can turn it on
    if program.embedded and not any(name.startswith("separating/") for name in options):
        options = {**NO_CUT_SEPARATION, **options}
    if program.fine:
        options = {**SCIP_FINE_PARAMETERS, **options}
    known = model.getParams() if options else {}
    for name, value in options.items():
        if name in SCIP_LIMIT_PARAMETERS:
            raise OptionError(f"`{name}` is set by every solve from its limits: pass Limits({SCIP_LIMIT_PARAMETERS[name]}=...) instead")
        if name not in known:
            unknown_option("SCIP", name, known)
        plain = value.item() if hasattr(value, "item") else value
        if not _fits(plain, known[name]):
            raise _wrong_value(name, value, known[name])
        try:
            model.setParam(name, plain)
        except Exception as error:  # PySCIPOpt raises different exceptions for different return codes of SCIP
            raise _wrong_value(name, value, known[name]) from error


def _fits(value: object, now: object) -> bool:
    """Return whether the value has the type of the parameter; SCIP itself would read 2.7 as 2, and 3 as True."""
    if isinstance(now, bool) or isinstance(value, bool):
        return isinstance(now, bool) and isinstance(value, bool)
    if isinstance(now, float):
        return isinstance(value, int | float)
    return isinstance(value, type(now))


def _wrong_value(name: str, value: object, now: object) -> OptionError:
    return OptionError(f"SCIP does not take {value!r} for `{name}` (it is {now!r} now); expected another {type(now).__name__} or range")


def set_limits(model: Any, limits: Limits, time: float, memory: float) -> None:
    """Set every limit of one solve, with ``time`` seconds left and ``memory`` MiB by default."""
    values: dict[str, float | int] = {
        "limits/time": max(0.0, min(time, SCIP_INFINITY)),
        # SCIP divides by the smaller of the two bounds, which is never looser than our gap; `SolveProgress` stops exactly at ours
        "limits/gap": min(limits.gap, SCIP_INFINITY),
        "limits/absgap": min(limits.gap_abs, SCIP_INFINITY),
        "limits/totalnodes": -1 if limits.nodes is None else limits.nodes,
        "limits/memory": memory if limits.memory is None else limits.memory,
        "limits/dual": TARGET_UNSET if limits.bound_stop is None else limits.bound_stop,
        "limits/primal": TARGET_UNSET if limits.objective_stop is None else limits.objective_stop,
    }
    for name, value in values.items():
        model.setParam(name, value)
