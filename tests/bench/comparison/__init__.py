"""The dispatch of docs/comparison.md: one surrogate in mipnet, gurobi-machinelearning and PySCIPOpt-ML."""
