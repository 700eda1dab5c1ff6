PYTHON ?= python3
# Index address of PyTorch's wheels for machines without a GPU; see `make help`.
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo demo-short test test-slow test-verl test-inspect learn-verl check bench bench-sandbox overload-sandbox \
  soak-sandbox bench-grading docs clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo "make demo       train the tiny model on this machine and draw its report"
	@echo "                (ARGS='--set seed=3' passes options on to 'ctpo train tiny')"
	@echo "make demo-short the first fifth of it, checked for getting better"
	@echo "make test       the tests that take seconds"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-verl  whole runs of verl under Ray, on the processor, in minutes"
	@echo "make test-inspect  the log for Inspect AI, read by it, in an environment of its own"
	@echo "make learn-verl the demo on verl: it must get better; six minutes"
	@echo "make check      lint, format, types and the rule on imports between rooms"
	@echo "make bench      the benchmarks"
	@echo "make bench-sandbox      the sandbox beside bubblewrap and firejail, where installed"
	@echo "make overload-sandbox   2,000 requests in flight for two minutes on two processors"
	@echo "make soak-sandbox       200,000 programs, one in twenty of them hostile"
	@echo "make bench-grading  the tables of docs/grading.md (ARGS='--data FILE' adds golds of yours)"
	@echo "make docs       the documentation, into site/"
	@echo "make clean      remove what the other targets made, but not runs/"
	@echo
	@echo "The first of these makes $(VENV) and installs into it the versions of constraints.txt."
	@echo "PYTHON=python3.12     which Python to make it with: 3.11, 3.12 or 3.13"
	@echo "TORCH_INDEX=<address> where to get torch from. On Linux its usual wheels bring gigabytes of"
	@echo "                      GPU libraries; without a GPU, choose pip and CPU on PyTorch's install"
	@echo "                      page and copy the address that it shows behind --index-url."

# The links in .venv/bin are as old as the Python they point to, so their age says nothing.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), which takes some minutes the first time"
	@# torch first and alone, so that nothing else is looked up at its index.
	@$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) install -c constraints.txt -e '.[train,verl,dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "ctpo needs Python 3.11, 3.12 or 3.13; $(PYTHON) is: `$(PYTHON) --version 2>&1`."; \
	    echo "Name another one, as in: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu this means that the"; \
	    echo "package python3-venv is missing; install it and try again."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DOCS_INSTALLED): $(INSTALLED)
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/ctpo train tiny $(ARGS)

demo-short: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -k shortened tests/acceptance $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not verl" $(ARGS)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow $(ARGS)

test-verl: $(INSTALLED)
	$(BIN)/python -m pytest -m "verl and not slow" tests/engines/verl $(ARGS)

# Inspect AI cannot be installed beside the versions of constraints.txt, and its log needs few of them.
INSPECT := .venv-inspect
$(INSPECT)/.installed: tests/evaluation/inspect-requirements.txt
	@$(PYTHON) -m venv $(INSPECT)
	@$(INSPECT)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

test-inspect: $(INSPECT)/.installed
	PYTHONPATH=src $(INSPECT)/bin/python -m pytest --noconftest tests/evaluation/test_inspect_log.py $(ARGS)

learn-verl: $(INSTALLED)
	$(BIN)/python -m pytest -m slow tests/engines/verl $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED)
	@set -e; for script in $(filter-out benchmarks/sandbox_% benchmarks/plain_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

bench-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox.py $(ARGS)

overload-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox_overload.py $(ARGS)

soak-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox_soak.py $(ARGS)

bench-grading: $(INSTALLED)
	$(BIN)/python benchmarks/grading.py $(ARGS)

docs: $(DOCS_INSTALLED)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(INSPECT) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
