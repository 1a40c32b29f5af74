"""SCIP's C functions, called through the library that PySCIPOpt has loaded: fast rows, and the log line by line.

PySCIPOpt creates a Python object per coefficient of a row, and its message handler is not safe while the solver runs without the
interpreter lock.  If the C functions are not found (`library` is None), PySCIPOpt's slower functions are used.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_uint, c_void_p
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyscipopt

from mipnet.arrays import Array
from mipnet.backend import Rows
from mipnet.errors import SolverFailure

SCIP_INFINITY = 1e20
"""The number from which on SCIP treats values as infinite."""

_RELAY = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_char_p)


@cache
def library() -> Any | None:
    """Return SCIP's functions with their C types; None if the extension module does not export them."""
    try:
        # the module itself gives access to the symbols of its dependencies, whatever the name of SCIP's library in the wheel
        lib = ctypes.CDLL(pyscipopt.scip.__file__)
        lib.SCIPcreateConsBasicLinear.argtypes = [
            c_void_p, POINTER(c_void_p), c_char_p, c_int, c_void_p, c_void_p, c_double, c_double,
        ]  # fmt: skip
        lib.SCIPaddCons.argtypes = [c_void_p, c_void_p]
        lib.SCIPreleaseCons.argtypes = [c_void_p, POINTER(c_void_p)]
        lib.SCIPgetSolVals.argtypes = [c_void_p, c_void_p, c_int, c_void_p, c_void_p]
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


def add_rows(lib: Any, model: Any, variables: list[Any], rows: Rows) -> None:
    """Add all rows by `SCIPcreateConsBasicLinear`, which takes a tenth of the time of PySCIPOpt's functions."""
    scip, matrix = pointer(model), rows.matrix
    pointers = np.array([v.ptr() for v in variables], dtype=np.uintp)[matrix.indices]
    data = np.ascontiguousarray(matrix.data, dtype=np.float64)
    lower, upper = np.clip(rows.lower, -SCIP_INFINITY, SCIP_INFINITY).tolist(), np.clip(rows.upper, -SCIP_INFINITY, SCIP_INFINITY).tolist()
    first, values, starts = pointers.ctypes.data, data.ctypes.data, matrix.indptr.tolist()
    cons = c_void_p()
    for row, (begin, end) in enumerate(pairwise(starts)):
        at = (first + begin * pointers.itemsize, values + begin * data.itemsize)
        code = lib.SCIPcreateConsBasicLinear(scip, byref(cons), b"row", end - begin, *at, lower[row], upper[row])
        if code != 1 or lib.SCIPaddCons(scip, cons) != 1 or lib.SCIPreleaseCons(scip, byref(cons)) != 1:
            raise SolverFailure(f"SCIP refused row {row}; look for coefficients or sides of 1e20 and more")


def node_values(lib: Any, model: Any, variables: list[Any]) -> Array:
    """Return the values of variables in the solution of the current node's relaxation."""
    pointers, values = np.array([v.ptr() for v in variables], dtype=np.uintp), np.empty(len(variables))
    if lib.SCIPgetSolVals(pointer(model), None, len(values), pointers.ctypes.data, values.ctypes.data) != 1:
        raise SolverFailure("SCIP returned no solution of its relaxation")
    return values


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
