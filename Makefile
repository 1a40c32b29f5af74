# Needs Python (3.11 or later) and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -q -c constraints.txt

.PHONY: help demo test test-all bench bench-comparison bench-importance bench-verification lint docs layout mutants clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 8

demo: .venv/.installed-test ## score the neurons of a small network, and prune it
	$(BIN)/mipnet solve examples/digits.yaml

# Byte code is kept, because tests start many processes that import mipnet; without OMP_NUM_THREADS each worker would use all cores.
test: .venv/.installed-test ## run the tests (about 4 minutes on two cores)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-all: .venv/.installed-test ## run the tests and every case of the sweeps over networks, formulations and seeds
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not bench' $(ARGS)

mutants: .venv/.installed-test ## put single faults into MODULE (or all of the core), and list those that no test notices
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MODULE) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

bench: .venv/.installed-bench ## run the benchmarks and write docs/benchmarks.md (MIPNET_DATA names the folder of MNIST files)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m bench tests/bench $(ARGS)

bench-importance: .venv/.installed-bench ## score and prune the paper's networks and write docs/importance.md (needs MIPNET_DATA, too)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.importance $(ARGS)

bench-comparison: .venv/.installed-bench ## build and solve one model with mipnet and two other libraries, and write docs/comparison.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.comparison $(ARGS)

bench-verification: .venv/.installed-bench ## decide two benchmarks of VNN-COMP and write the tables of docs/verification.md (needs MIPNET_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.verification $(ARGS)

lint: .venv/.installed-lint ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: .venv/.installed-docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

layout: .venv/.installed-test ## write the section on the layout of docs/design.md from the import contracts and the docstrings
	$(BIN)/python -m tests.layout
	$(BIN)/python -m tests.operators_page

clean: ## remove everything that was made
	rm -rf .venv build dist site runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mipnet needs Python 3.11 or later; name one with `make PYTHON=python3.11`")'
	$(PYTHON) -m venv .venv

.venv/.installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[$*]'
	touch $@
