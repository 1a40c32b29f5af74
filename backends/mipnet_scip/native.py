"""SCIP's own C functions, reached through the library that PySCIPOpt has loaded: fast rows, and the log line by line.

PySCIPOpt offers neither: its rows cost a Python object for each coefficient, and its message handler is not safe while the
solver runs without the interpreter lock.  Where the functions cannot be found (`library` is None) the slower public ways serve.
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
from numpy.typing import NDArray

from mipnet.backend import Rows
from mipnet.errors import SolverFailure

INFINITY = 1e20
"""What SCIP takes for infinite."""

_RELAY = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_char_p)


@cache
def library() -> Any | None:
    """SCIP's functions with their C types, or None if the extension module does not show them."""
    try:
        # symbols of a module's dependencies are found through the module itself, whatever the wheel calls the library
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
    """The address of the SCIP object behind a model."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, [ctypes.py_object, c_char_p]
    return int(get(model.to_ptr(False), b"scip"))


def add_rows(lib: Any, model: Any, variables: list[Any], rows: Rows) -> None:
    """Adds all rows by `SCIPcreateConsBasicLinear`, a tenth of the time of any public way."""
    scip, matrix = pointer(model), rows.matrix
    pointers = np.array([v.ptr() for v in variables], dtype=np.uintp)[matrix.indices]
    data = np.ascontiguousarray(matrix.data, dtype=np.float64)
    lower, upper = np.clip(rows.lower, -INFINITY, INFINITY).tolist(), np.clip(rows.upper, -INFINITY, INFINITY).tolist()
    first, values, starts = pointers.ctypes.data, data.ctypes.data, matrix.indptr.tolist()
    cons = c_void_p()
    for row, (begin, end) in enumerate(pairwise(starts)):
        at = (first + begin * pointers.itemsize, values + begin * data.itemsize)
        code = lib.SCIPcreateConsBasicLinear(scip, byref(cons), b"row", end - begin, *at, lower[row], upper[row])
        if code != 1 or lib.SCIPaddCons(scip, cons) != 1 or lib.SCIPreleaseCons(scip, byref(cons)) != 1:
            raise SolverFailure(f"SCIP refused row {row}; look for coefficients or sides of 1e20 and more")


def node_values(lib: Any, model: Any, variables: list[Any]) -> NDArray[np.float64]:
    """The values of variables in the solution of the node's relaxation."""
    pointers, values = np.array([v.ptr() for v in variables], dtype=np.uintp), np.empty(len(variables))
    if lib.SCIPgetSolVals(pointer(model), None, len(values), pointers.ctypes.data, values.ctypes.data) != 1:
        raise SolverFailure("SCIP does not tell its relaxation's solution")
    return values


Sink = weakref.WeakMethod[Callable[[str], None]]
_sinks: dict[int, Sink] = {}


# the default argument outlives the module's globals: SCIP may speak until the interpreter is gone
def _relay(handler: int | None, _file: int | None, message: bytes | None, sinks: dict[int, Sink] = _sinks) -> None:
    weak = sinks.get(handler or 0)
    sink = None if weak is None else weak()
    if sink is not None and message is not None:
        sink(message.decode("utf-8", "replace"))


_relay_c = _RELAY(_relay)


def redirect_log(lib: Any, model: Any, sink: Callable[[str], None]) -> int:
    """Sends what SCIP would print to the method ``sink``, held weakly; returns the key that `release_log` takes."""
    handler = c_void_p()
    lib.SCIPmessagehdlrCreate(byref(handler), 1, None, 0, _relay_c, _relay_c, _relay_c, None, None)
    key = int(handler.value or 0)
    _sinks[key] = weakref.WeakMethod(sink)
    lib.SCIPsetMessagehdlr(pointer(model), handler)
    lib.SCIPmessagehdlrRelease(byref(handler))
    return key


def release_log(key: int) -> None:
    """Forgets a sink; SCIP's later words go nowhere."""
    _sinks.pop(key, None)
