"""Solving a problem with a backend, in cut rounds, and checking the solution by a replay."""
