PYTHON ?= python3
# Index address of PyTorch's wheels for machines without a GPU; see `make help`.
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What the demo uses: neither verl and Ray nor the tools. Where all is installed, that serves it too.
TRAIN_INSTALLED := $(if $(wildcard $(VENV)/.installed),$(VENV)/.installed,$(VENV)/.installed-train)
DOCS_INSTALLED := $(VENV)/.installed-docs
# What is never imported need not be compiled.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-compile -c constraints.txt

# Tests that share a machine: the quick ones, on two processors.
WORKERS ?= 2
N ?= 10
PYTEST := $(BIN)/python -m pytest
QUICK := $(PYTEST) -n $(WORKERS) -m "not (slow or long or timing or verl or faults)"

.PHONY: help demo demo-short test test-repeat test-slow test-long test-timing test-verl test-faults test-inspect test-extras \
  learn-verl extras dist \
  check bench figures gpu gpu-wheels \
  bench-sandbox bench-sandbox-floor overload-sandbox soak-sandbox soak-episodes bench-grading docs clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo "make demo       train the tiny model on this machine and draw its report"
	@echo "                (ARGS='--set seed=3' passes options on to 'ctpo train tiny')"
	@echo "make demo-short the first fifth of it, checked for getting better"
	@echo "make test       the quick tests, side by side on two processors (WORKERS=2)"
	@echo "make test-repeat  these ten times (N=10), also beside a busy neighbour and in random order"
	@echo "make test-slow  the tests that take tens of seconds, those of test-verl among them"
	@echo "make test-timing  those that look at how long something takes"
	@echo "make test-verl  what starts verl or Ray, whole runs on the processor too, in minutes"
	@echo "make test-faults kills at many moments, full disks, damaged files: the same bits after each"
	@echo "make test-inspect  the log for Inspect AI, read by it, in an environment of its own"
	@echo "make test-extras  every extra, from the wheel, in an empty environment: its commands run"
	@echo "make extras     the table of what comes with each, in docs/installing.md, measured anew"
	@echo "make dist       the source distribution and the wheel, into dist/"
	@echo "make test-long  whole demos and the like, an hour"
	@echo "make learn-verl the demo on verl: it must get better; six minutes"
	@echo "make check      lint, format, types and the rule on imports between rooms"
	@echo "make bench      the benchmarks"
	@echo "make gpu        all that one GPU can be asked in nine minutes, into docs/data/gpu"
	@echo "make gpu-wheels  packs what 'make gpu' needs where there is no network (PY=3.11)"
	@echo "make bench-sandbox      the sandbox beside bubblewrap and firejail, where installed"
	@echo "make bench-sandbox-floor  where the time of print(1) goes, and what was tried"
	@echo "make overload-sandbox   2,000 requests in flight for two minutes on two processors"
	@echo "make soak-sandbox       200,000 programs, a third of them hostile, and sessions"
	@echo "make soak-episodes      10,000 batches of tiny episodes without updates"
	@echo "make bench-grading  the tables of docs/grading.md (ARGS='--pairs FILE' adds pairs of yours)"
	@echo "make figures    run examples/ratios.ipynb, and renew the figures of docs/method.md"
	@echo "make docs       the documentation, into site/"
	@echo "make clean      remove what the other targets made, but not runs/"
	@echo
	@echo "The first of these makes $(VENV) and installs into it the versions of constraints.txt:"
	@echo "for the demo what training needs, for all others verl, Ray and the tools besides."
	@echo "PYTHON=python3.12     which Python to make it with: 3.11, 3.12 or 3.13"
	@echo "TORCH_INDEX=<address> where to get torch from. On Linux its usual wheels bring gigabytes of"
	@echo "                      GPU libraries; without a GPU, choose pip and CPU on PyTorch's install"
	@echo "                      page and copy the address that it shows behind --index-url."

$(INSTALLED): EXTRAS := train,verl,dev
$(VENV)/.installed-train: EXTRAS := train

# The links in .venv/bin are as old as the Python they point to, so their age says nothing.
$(INSTALLED) $(VENV)/.installed-train: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing $(EXTRAS) into $(VENV), which takes some minutes the first time"
	@# torch first and alone, so that nothing else is looked up at its index.
	@$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(INSTALL) -e '.[$(EXTRAS)]'
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
	@$(INSTALL) -e '.[docs]'
	@touch $@

demo: $(TRAIN_INSTALLED)
	$(BIN)/ctpo train tiny $(ARGS)

demo-short: $(INSTALLED)
	$(PYTEST) -m slow -k shortened tests/acceptance $(ARGS)

test: $(INSTALLED)
	$(QUICK) $(ARGS)

test-repeat: $(INSTALLED)
	$(BIN)/python tests/repeat.py $(N) $(QUICK) $(ARGS)

test-slow: $(INSTALLED)
	$(PYTEST) -n $(WORKERS) -m "slow or (verl and not long)" $(ARGS)

test-long: $(INSTALLED)
	$(PYTEST) -m long $(ARGS)

test-timing: $(INSTALLED)
	$(PYTEST) -m timing $(ARGS)

test-verl: $(INSTALLED)
	$(PYTEST) -m "verl and not long" $(ARGS)

test-faults: $(INSTALLED)
	$(PYTEST) -m faults $(ARGS)

# Inspect AI cannot be installed beside the versions of constraints.txt, and its log needs few of them.
INSPECT := .venv-inspect
$(INSPECT)/.installed: tests/evaluation/inspect-requirements.txt
	@$(PYTHON) -m venv $(INSPECT)
	@$(INSPECT)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

test-inspect: $(INSPECT)/.installed
	PYTHONPATH=src $(INSPECT)/bin/python -m pytest --noconftest tests/evaluation/test_inspect_log.py $(ARGS)

test-extras: $(INSTALLED)
	$(PYTEST) -m long tests/installing $(ARGS)

extras: $(INSTALLED)
	$(BIN)/python -m tests.installing.extras

# The version stands in the package; a tag must say the same.
dist: $(INSTALLED)
	@tag=`git describe --exact-match --tags --match 'v*' 2>/dev/null`; is=v`$(BIN)/ctpo --version`; \
	  test -z "$$tag" || test "$$tag" = "$$is" || { echo "the tag is $$tag, the package $$is"; exit 1; }
	$(BIN)/python -m build

learn-verl: $(INSTALLED)
	$(PYTEST) -m long tests/engines/verl/test_learning.py $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED)
	@set -e; for script in $(filter-out benchmarks/sandbox_% benchmarks/soak_% benchmarks/plain_% benchmarks/gpu_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

bench-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox.py $(ARGS)

bench-sandbox-floor: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox_floor.py $(ARGS)

overload-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox_overload.py $(ARGS)

soak-sandbox: $(INSTALLED)
	$(BIN)/python benchmarks/sandbox_soak.py $(ARGS)

soak-episodes: $(INSTALLED)
	$(BIN)/python benchmarks/soak_episodes.py $(ARGS)

bench-grading: $(INSTALLED)
	$(BIN)/python -m benchmarks.grading $(ARGS)

figures: $(INSTALLED)
	$(BIN)/python examples/run_notebook.py examples/ratios.ipynb --figures docs/images

# Without an environment of its own: it uses what the machine with the GPU has.
gpu:
	PYTHON=$(PYTHON) benchmarks/gpu.sh $(ARGS)

PY ?= 3.11
gpu-wheels:
	rm -rf build/gpu-wheels
	$(PYTHON) -m pip download --disable-pip-version-check --quiet --no-deps --only-binary :all: \
	  --python-version $(PY) --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
	  --platform manylinux_2_17_x86_64 -c constraints.txt -r benchmarks/gpu-wheels.txt -d build/gpu-wheels
	@test "$$(du -sm build/gpu-wheels | cut -f1)" -lt 60 || { echo "over 60 MB"; exit 1; }

docs: $(DOCS_INSTALLED)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(INSPECT) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
