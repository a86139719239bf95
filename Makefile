# `make demo` and `make test` work on a machine with Python 3.11+ and make, nothing else: each installs what it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Nothing phones home, and nothing is installed while a study runs.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo study test lint format bench bench-gpu experiments-small soak fuzz coverage clean install

help:            ## this list
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 12

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "FairSynth needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/runtime.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/runtime.stamp  ## install the command line into .venv

demo: $(VENV)/runtime.stamp     ## simulate two hospitals, run the federated study, write the report
	$(BIN)/fairsynth demo --out runs/demo --force

study: $(VENV)/runtime.stamp    ## the same on real tables: make study STUDY=studies/mimic3demo_pic.yaml
	$(BIN)/fairsynth study $(STUDY)

STUDY ?= studies/mimic3demo_pic.yaml

test: $(VENV)/dev.stamp         ## all tests but the slow ones, with line coverage
	$(BIN)/python -m pytest -m 'not slow' --cov --cov-report=term:skip-covered $(ARGS)

lint: $(VENV)/dev.stamp         ## format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/dev.stamp       ## let ruff lay out the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp        ## the benchmarks' quick settings
	$(BIN)/python -m benchmarks.pipeline --quick
	$(BIN)/python -m benchmarks.convergence --quick
	$(BIN)/python -m benchmarks.extract --quick
	$(BIN)/python -m benchmarks.generator --quick
	$(BIN)/python -m benchmarks.stream --quick
	$(BIN)/python -m benchmarks.fidelity --quick
	$(BIN)/python -m benchmarks.dp --quick

bench-gpu: $(VENV)/dev.stamp    ## the 207 M-parameter generator on a GPU; says so where there is none
	$(BIN)/python -m benchmarks.gpu

experiments-small: $(VENV)/dev.stamp  ## do the headline results point the same way on little data?
	$(BIN)/python -m benchmarks.evidence_small

soak: $(VENV)/dev.stamp         ## the slow tests
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/dev.stamp         ## extract randomly damaged tables: make fuzz FUZZ=2000
	FUZZ=$(FUZZ) $(BIN)/python -m pytest -m slow tests/extraction/test_extraction_fuzz.py

FUZZ ?= 1000

clean:                          ## remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage *.egg-info
