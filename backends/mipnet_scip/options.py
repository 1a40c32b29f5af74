"""SCIP's own parameters, every name, type and value checked; its limits, set from `Limits`; its words for a status."""

from __future__ import annotations

from typing import Any

from mipnet.backend import Limits, Options, Status
from mipnet.backend.helpers import unknown_option
from mipnet.errors import OptionError
from mipnet_scip.native import INFINITY

OWNED = {
    "limits/time": "time",
    "limits/gap": "gap",
    "limits/absgap": "gap",
    "limits/nodes": "nodes",
    "limits/totalnodes": "nodes",
    "limits/memory": "memory",
    "limits/dual": "bound_stop",
    "limits/primal": "objective_stop",
}
"""Parameters that every solve sets from its `Limits`."""

STATUS: dict[str, Status | None] = {
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
"""What SCIP's words mean to mipnet; None for a solve that was told to stop."""

UNSET = 1e99
"""SCIP's default of limits/dual and limits/primal: none."""


def set_options(model: Any, options: Options, *, nonlinear: bool = False, sets: bool = False) -> None:
    """Sets the given parameters; raises `OptionError` for unknown names and for values that SCIP would bend or refuse."""
    model.setParam("misc/catchctrlc", False)  # SCIP would print to standard output; `run_apart` does it
    if nonlinear:
        model.setParam("heuristics/nlpdiving/freq", -1)  # it corrupts memory on log-sum-exp in SCIP 10.0.2; an option brings it back
    if sets:
        model.setParam("constraints/SOS1/sepafreq", -1)  # its bound cuts lose optimal points in SCIP 10.0.2; an option brings them back
    known = model.getParams() if options else {}
    for name, value in options.items():
        if name in OWNED:
            raise OptionError(f"`{name}` is set by every solve from its limits: pass Limits({OWNED[name]}=...) instead")
        if name not in known:
            unknown_option("SCIP", name, known)
        plain = value.item() if hasattr(value, "item") else value
        if not _fits(plain, known[name]):
            raise _wrong(name, value, known[name])
        try:
            model.setParam(name, plain)
        except Exception as error:  # PySCIPOpt raises whatever fits the C code
            raise _wrong(name, value, known[name]) from error


def _fits(value: object, now: object) -> bool:
    """Whether the value is of the parameter's type; SCIP itself would cut 2.7 to 2 and take 3 for True."""
    if isinstance(now, bool) or isinstance(value, bool):
        return isinstance(now, bool) and isinstance(value, bool)
    if isinstance(now, float):
        return isinstance(value, int | float)
    return isinstance(value, type(now))


def _wrong(name: str, value: object, now: object) -> OptionError:
    return OptionError(f"SCIP does not take {value!r} for `{name}` (it is {now!r} now); expected another {type(now).__name__} or range")


def set_limits(model: Any, limits: Limits, time: float, memory: float) -> None:
    """Sets every limit of one solve, with ``time`` seconds left and ``memory`` MiB by default."""
    values: dict[str, float | int] = {
        "limits/time": max(0.0, min(time, INFINITY)),
        # SCIP divides by the smaller of the two bounds: never looser than ours, which `Progress` stops at exactly
        "limits/gap": min(limits.gap, INFINITY),
        "limits/absgap": min(limits.gap, INFINITY),
        "limits/totalnodes": -1 if limits.nodes is None else limits.nodes,
        "limits/memory": memory if limits.memory is None else limits.memory,
        "limits/dual": UNSET if limits.bound_stop is None else limits.bound_stop,
        "limits/primal": UNSET if limits.objective_stop is None else limits.objective_stop,
    }
    for name, value in values.items():
        model.setParam(name, value)
