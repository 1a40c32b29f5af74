"""HiGHS's options: every name and value is checked, because HiGHS ignores unknown options."""

from __future__ import annotations

from typing import Any

import highspy

from mipnet.backend import Options, ToleranceKind
from mipnet.backend.checks import unknown_option
from mipnet.errors import OptionError, SolverFailure

HIGHS_LIMIT_OPTIONS = {
    "time_limit": "time",
    "mip_rel_gap": "gap",
    "mip_abs_gap": "gap",
    "mip_max_nodes": "nodes",
    "objective_target": "objective_stop",
}
"""Options that every solve sets from its `Limits`, with the field that sets each."""


def set_option(highs: Any, name: str, value: object) -> None:
    """Set one option; raises `OptionError` if HiGHS does not have it, or does not take the value."""
    if highs.getOptionValue(name)[0] != highspy.HighsStatus.kOk:
        unknown_option("HiGHS", name, [n for n in dir(highs.getOptions()) if not n.startswith("_")])
    plain = value.item() if hasattr(value, "item") else value
    try:
        taken = highs.setOptionValue(name, plain) == highspy.HighsStatus.kOk
    except TypeError:  # a list, None or another type that no overload takes
        taken = False
    if not taken:
        now = highs.getOptionValue(name)[1]
        raise OptionError(f"HiGHS does not take {value!r} for `{name}` (it is {now!r} now); expected another {type(now).__name__} or range")


HIGHS_DEVELOPER_OPTIONS = ("log_dev_level", "highs_debug_level", "highs_analysis_level")
"""With these options HiGHS writes on standard output whatever `log_to_console` says, and a high `highs_analysis_level` crashes it."""


def _refuse(name: str, value: object, mip: bool) -> None:
    if name in HIGHS_LIMIT_OPTIONS:
        raise OptionError(f"`{name}` is set by every solve from its limits: pass Limits({HIGHS_LIMIT_OPTIONS[name]}=...) instead")
    if name == "objective_bound" and mip:
        raise OptionError("`objective_bound` makes HiGHS call a wrong point optimal on a MIP: pass Limits(bound_stop=...) instead")
    if name == "log_to_console" and value is not False:
        raise OptionError("`log_to_console` stays off: the log arrives as events; pass `on_event`, or set `log_file`")
    if name in HIGHS_DEVELOPER_OPTIONS and value != 0:
        raise OptionError(f"`{name}` stays 0: with {value!r}, which is for developers of HiGHS, it writes on standard output")


LARGE_PROGRAM_NONZEROS = 100_000
"""A program with more nonzeros than this gets `LARGE_PROGRAM_OPTIONS`."""

PRESOLVE_RULE_SPARSIFY = 1 << 14

LARGE_PROGRAM_OPTIONS: dict[str, object] = {
    "presolve_rule_off": PRESOLVE_RULE_SPARSIFY,
    "mip_detect_symmetry": False,
    "mip_heuristic_run_feasibility_jump": False,
}
"""These steps take time that grows faster than a program with dense rows, do not look at the clock, and find nothing in trained networks:
of the 1.8 million nonzeros of a network 784-1000-1000-10, sparsify takes a minute and the other two take four seconds."""


HIGHS_FINE_TOLERANCE = 1e-9
"""Tolerances of a program that needs finer ones than HiGHS's own; the smallest that it takes is 1e-10."""

HIGHS_FINE_OPTIONS: dict[str, object] = {
    "primal_feasibility_tolerance": HIGHS_FINE_TOLERANCE,
    "dual_feasibility_tolerance": HIGHS_FINE_TOLERANCE,
    "mip_feasibility_tolerance": HIGHS_FINE_TOLERANCE,
}


HIGHS_TOLERANCE_OPTIONS: dict[str, ToleranceKind] = {
    "primal_feasibility_tolerance": "rows",
    "mip_feasibility_tolerance": "rows",
    "dual_feasibility_tolerance": "reduced costs",
    "kkt_tolerance": "both",
}
"""Options that set tolerances."""


def set_options(highs: Any, options: Options, mip: bool, nonzeros: int = 0, *, fine: bool = False) -> None:
    """Set mipnet's defaults and then the given options; raises `OptionError` for options that would break the contract."""
    defaults: dict[str, object] = {"log_to_console": False, "output_flag": True, "threads": 1, "random_seed": 0}
    defaults |= LARGE_PROGRAM_OPTIONS if nonzeros > LARGE_PROGRAM_NONZEROS else {}
    defaults |= HIGHS_FINE_OPTIONS if fine else {}
    for name, value in (defaults | dict(options)).items():
        _refuse(name, value, mip)
        set_option(highs, name, value)
    if highs.getOptionValue("solver")[1] == "pdlp":
        set_option(highs, "output_flag", False)  # PDLP prints to standard output even if log_to_console is off


def expect_ok(status: Any, doing: str) -> None:
    """Raise `SolverFailure` if HiGHS reported an error."""
    if status == highspy.HighsStatus.kError:
        raise SolverFailure(f"HiGHS refused {doing}; look for coefficients above 1e15, or bounds that are NaN")
