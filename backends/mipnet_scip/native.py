"""SCIP's C functions, called through the library that PySCIPOpt has loaded: fast variables, rows and points, and the log line by line.

PySCIPOpt creates Python objects per variable and per coefficient of a row, and its message handler is not safe while the solver runs
without the interpreter lock.  If the C functions are not found (`library` is None), PySCIPOpt's slower functions are used.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_uint, c_void_p
from functools import cache
from typing import Any

import numpy as np
import pyscipopt
from numpy.typing import NDArray

from mipnet.arrays import Array, Columns
from mipnet.backend import Program, Rows
from mipnet.errors import SolverFailure

Pointers = NDArray[np.uintp]
"""Addresses of SCIP's variables."""

SCIP_INFINITY = 1e20
"""The number from which on SCIP treats values as infinite."""

INTEGER_TYPE, CONTINUOUS_TYPE = 1, 3
"""SCIP's numbers of the types of variables."""

_RELAY = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_char_p)


@cache
def library() -> Any | None:
    """Return SCIP's functions with their C types; None if the extension module does not export them."""
    try:
        # the module itself gives access to the symbols of its dependencies, whatever the name of SCIP's library in the wheel
        lib = ctypes.CDLL(pyscipopt.scip.__file__)
        lib.SCIPcreateVarBasic.argtypes = [c_void_p, c_void_p, c_char_p, c_double, c_double, c_double, c_int]
        lib.SCIPaddVar.argtypes = [c_void_p, c_void_p]
        lib.SCIPreleaseVar.argtypes = [c_void_p, c_void_p]
        lib.SCIPcreateConsBasicSOS1.argtypes = [c_void_p, POINTER(c_void_p), c_char_p, c_int, c_void_p, c_void_p]
        lib.SCIPcreateConsBasicLinear.argtypes = [
            c_void_p, c_void_p, c_char_p, c_int, c_void_p, c_void_p, c_double, c_double,
        ]  # fmt: skip
        lib.SCIPaddCons.argtypes = [c_void_p, c_void_p]
        lib.SCIPreleaseCons.argtypes = [c_void_p, c_void_p]
        lib.SCIPgetSolVals.argtypes = [c_void_p, c_void_p, c_int, c_void_p, c_void_p]
        lib.SCIPgetBestSol.argtypes, lib.SCIPgetBestSol.restype = [c_void_p], c_void_p
        for create in (lib.SCIPcreateSol, lib.SCIPcreateOrigSol):
            create.argtypes = [c_void_p, POINTER(c_void_p), c_void_p]
        lib.SCIPsetSolVals.argtypes = [c_void_p, c_void_p, c_int, c_void_p, c_void_p]
        lib.SCIPcheckSolOrig.argtypes = [c_void_p, c_void_p, POINTER(c_uint), c_uint, c_uint]
        lib.SCIPaddSolFree.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_uint)]
        lib.SCIPtrySolFree.argtypes = [c_void_p, POINTER(c_void_p), c_uint, c_uint, c_uint, c_uint, c_uint, POINTER(c_uint)]
        relays: list[Any] = [c_uint, c_char_p, c_uint, _RELAY, _RELAY, _RELAY, c_void_p, c_void_p]
        lib.SCIPmessagehdlrCreate.argtypes = [POINTER(c_void_p), *relays]
        lib.SCIPsetMessagehdlr.argtypes = [c_void_p, c_void_p]
        lib.SCIPmessagehdlrRelease.argtypes = [POINTER(c_void_p)]
    except (AttributeError, OSError):
        return None
    return lib


def pointer(model: Any) -> int:
    """Return the address of the SCIP object of a model."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, [ctypes.py_object, c_char_p]
    return int(get(model.to_ptr(False), b"scip"))


def add_variables(lib: Any, model: Any, program: Program) -> Pointers:
    """Add one variable per column, and return their addresses; SCIP keeps them as long as the problem."""
    scip, pointers = pointer(model), np.zeros(program.columns, dtype=np.uintp)
    # SCIP refuses bounds that cross, even by a rounding error
    ends = [np.clip(end(program.lower, program.upper), -SCIP_INFINITY, SCIP_INFINITY) for end in (np.minimum, np.maximum)]
    types = np.where(program.integer, INTEGER_TYPE, CONTINUOUS_TYPE)
    at, create = pointers.ctypes.data, lib.SCIPcreateVarBasic
    each = zip(ends[0].tolist(), ends[1].tolist(), program.cost.tolist(), types.tolist(), strict=True)
    for number, (lower, upper, cost, kind) in enumerate(each, start=1):
        if create(scip, at, b"x%d" % number, lower, upper, cost, kind) != 1:
            raise SolverFailure(f"SCIP refused column {number - 1}; look for bounds and costs of 1e20 and more")
        at += pointers.itemsize
    held = pointers.copy()  # releasing a variable sets its address to 0
    at = held.ctypes.data
    add, release = lib.SCIPaddVar, lib.SCIPreleaseVar
    for variable in pointers.tolist():
        if add(scip, variable) != 1 or release(scip, at) != 1:
            raise SolverFailure("SCIP refused a column")
        at += held.itemsize
    return pointers


def add_sos1(lib: Any, model: Any, variables: Pointers, sets: Sequence[Columns]) -> None:
    """Add SOS1 sets."""
    scip, cons = pointer(model), c_void_p()
    for members in sets:
        own = np.ascontiguousarray(variables[members])
        code = lib.SCIPcreateConsBasicSOS1(scip, byref(cons), b"set", len(own), own.ctypes.data, None)
        if code != 1 or lib.SCIPaddCons(scip, cons) != 1 or lib.SCIPreleaseCons(scip, byref(cons)) != 1:
            raise SolverFailure("SCIP refused an SOS1 set")


def add_rows(lib: Any, model: Any, variables: Pointers, rows: Rows) -> None:
    """Add all rows by `SCIPcreateConsBasicLinear`, which takes a tenth of the time of PySCIPOpt's functions."""
    scip, matrix = pointer(model), rows.matrix
    pointers = variables[matrix.indices]
    data = np.ascontiguousarray(matrix.data, dtype=np.float64)
    lower, upper = np.clip(rows.lower, -SCIP_INFINITY, SCIP_INFINITY).tolist(), np.clip(rows.upper, -SCIP_INFINITY, SCIP_INFINITY).tolist()
    offsets, sizes = matrix.indptr[:-1].astype(np.int64) * data.itemsize, np.diff(matrix.indptr).tolist()
    firsts, values = (offsets + pointers.ctypes.data).tolist(), (offsets + data.ctypes.data).tolist()
    made = np.zeros(len(rows), dtype=np.uintp)
    at, create = made.ctypes.data, lib.SCIPcreateConsBasicLinear
    for row, (size, first, value, low, high) in enumerate(zip(sizes, firsts, values, lower, upper, strict=True)):
        if create(scip, at, b"", size, first, value, low, high) != 1:
            raise SolverFailure(f"SCIP refused row {row}; look for coefficients or sides of 1e20 and more")
        at += made.itemsize
    add, release = lib.SCIPaddCons, lib.SCIPreleaseCons
    held = made.copy()  # releasing a row sets its address to 0
    at = held.ctypes.data
    for row, cons in enumerate(made.tolist()):
        if add(scip, cons) != 1 or release(scip, at) != 1:
            raise SolverFailure(f"SCIP refused row {row}")
        at += held.itemsize


def node_values(lib: Any, model: Any, variables: Pointers) -> Array:
    """Return the values of variables in the solution of the current node's relaxation."""
    return _values(lib, model, variables, None)


def best_values(lib: Any, model: Any, variables: Pointers) -> Array:
    """Return the values of variables in the best solution, which there is."""
    return _values(lib, model, variables, lib.SCIPgetBestSol(pointer(model)))


def _values(lib: Any, model: Any, variables: Pointers, solution: int | None) -> Array:
    values = np.empty(len(variables))
    if lib.SCIPgetSolVals(pointer(model), solution, len(values), variables.ctypes.data, values.ctypes.data) != 1:
        raise SolverFailure("SCIP returned no solution")
    return values


def offer_start(lib: Any, model: Any, variables: Pointers, values: Array) -> bool:
    """Store a point before a solve; returns True if SCIP will accept it."""
    # SCIP stores any point at this stage; the check tells whether it will accept it
    scip, feasible, stored = pointer(model), c_uint(), c_uint()
    solution = _solution(lib, scip, lib.SCIPcreateSol, variables, values)
    checked = lib.SCIPcheckSolOrig(scip, solution, byref(feasible), 0, 0)
    if lib.SCIPaddSolFree(scip, byref(solution), byref(stored)) != 1 or checked != 1:
        raise SolverFailure("SCIP could not check a start")
    return bool(feasible.value)


def try_point(lib: Any, model: Any, variables: Pointers, values: Array) -> bool:
    """Give a point to SCIP during a solve, which checks it; returns True if SCIP accepts it."""
    scip, stored = pointer(model), c_uint()
    # `SCIPcreateSol` fails for variables that presolve has aggregated
    solution = _solution(lib, scip, lib.SCIPcreateOrigSol, variables, values)
    return lib.SCIPtrySolFree(scip, byref(solution), 0, 0, 1, 1, 1, byref(stored)) == 1 and bool(stored.value)


def _solution(lib: Any, scip: int, create: Any, variables: Pointers, values: Array) -> c_void_p:
    solution, given = c_void_p(), np.ascontiguousarray(values, dtype=np.float64)
    if create(scip, byref(solution), None) != 1:
        raise SolverFailure("SCIP could not store a point")
    if lib.SCIPsetSolVals(scip, solution, len(given), variables.ctypes.data, given.ctypes.data) != 1:
        raise SolverFailure("SCIP refused a point")
    return solution


LogSink = weakref.WeakMethod[Callable[[str], None]]
"""A weakly held method that gets the text of SCIP's log."""

_sinks: dict[int, LogSink] = {}


# a default argument, because SCIP may print after the globals of the module are deleted at exit
def _relay(handler: int | None, _file: int | None, message: bytes | None, sinks: dict[int, LogSink] = _sinks) -> None:
    weak = sinks.get(handler or 0)
    sink = None if weak is None else weak()
    if sink is not None and message is not None:
        sink(message.decode("utf-8", "replace"))


_relay_c = _RELAY(_relay)


def redirect_log(lib: Any, model: Any, sink: Callable[[str], None]) -> int:
    """Send what SCIP prints to the method ``sink``, held weakly; returns the key for `release_log`."""
    handler = c_void_p()
    lib.SCIPmessagehdlrCreate(byref(handler), 1, None, 0, _relay_c, _relay_c, _relay_c, None, None)
    key = int(handler.value or 0)
    _sinks[key] = weakref.WeakMethod(sink)
    lib.SCIPsetMessagehdlr(pointer(model), handler)
    lib.SCIPmessagehdlrRelease(byref(handler))
    return key


def release_log(key: int) -> None:
    """Remove a sink; what SCIP prints later is discarded."""
    _sinks.pop(key, None)
