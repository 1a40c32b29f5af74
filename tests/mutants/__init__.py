"""Mutation testing: single faults are put into the mathematical core, one at a time, and the tests have to notice."""
