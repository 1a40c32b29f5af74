"""CBC, GLPK, Gurobi, Xpress, CPLEX, COPT and MOSEK as backends of mipnet, run by linopy."""

from mipnet_linopy.solvers import CBC, COPT, CPLEX, GLPK, MOSEK, Gurobi, Xpress

__all__ = ["CBC", "COPT", "CPLEX", "GLPK", "MOSEK", "Gurobi", "Xpress"]
