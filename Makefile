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

.PHONY: help demo study test lint format bench bench-gpu experiments-small soak faults faults-soak fuzz security licences sbom lock image-inputs coverage clean install

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

test: $(VENV)/dev.stamp         ## all tests but the slow ones
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

coverage: $(VENV)/dev.stamp     ## the same with line coverage, which takes longer by a quarter or more
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
	$(BIN)/python -m benchmarks.gate --quick
	$(BIN)/python -m benchmarks.dp --quick
	$(BIN)/python -m benchmarks.noise --quick
	$(BIN)/python -m benchmarks.membership --quick
	$(BIN)/python -m benchmarks.privacy --quick

bench-gpu: $(VENV)/dev.stamp    ## the 207 M-parameter generator on a GPU; says so where there is none
	$(BIN)/python -m benchmarks.gpu

experiments-small: $(VENV)/dev.stamp  ## do the headline results point the same way on little data?
	$(BIN)/python -m benchmarks.evidence_small

soak: $(VENV)/dev.stamp         ## the slow tests
	$(BIN)/python -m pytest -m slow

faults: $(VENV)/dev.stamp       ## all faults of docs/faults.md, hours on 2 cores: make faults FAULTS="--level a"
	$(BIN)/python -m tests.faults --json build/faults.json $(FAULTS)

faults-soak: $(VENV)/dev.stamp  ## 30 minutes of random faults: make faults-soak FAULTS_SEED=7
	$(BIN)/python -m tests.faults --json build/faults-soak.json --soak 30 --seed $(FAULTS_SEED)

FAULTS ?=
FAULTS_SEED ?= 1

fuzz: $(VENV)/dev.stamp         ## randomly damaged tables, messages and files: make fuzz FUZZ=2000 FUZZ_INPUTS=1000000
	FUZZ=$(FUZZ) FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest -m slow \
		tests/extraction/test_extraction_fuzz.py tests/federation/test_federation_fuzz.py

FUZZ ?= 1000
FUZZ_INPUTS ?= 1000000

# Their own environment: what checks the dependencies must not change them.
TOOLS ?= .venv-tools
CHAIN := $(BIN)/python -m tools.supply_chain --tools $(TOOLS)/bin --out build

$(TOOLS)/tools.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt $$($(PYTHON) -c \
		'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["security"])')
	@touch $@

security: $(VENV)/runtime.stamp $(TOOLS)/tools.stamp  ## bandit, then known vulnerabilities; OFFLINE=1 goes on without the database
	$(TOOLS)/bin/bandit --quiet --recursive --configfile pyproject.toml --severity-level high fairsynth server client tools
	@echo "bandit: no finding of high severity"
	$(CHAIN) audit || { test $$? -eq 3 && test "$(OFFLINE)" = 1; }

licences: $(VENV)/runtime.stamp $(TOOLS)/tools.stamp  ## build/licences.json of what FairSynth needs to run; fails on copyleft and unknown
	$(CHAIN) licences

sbom: $(VENV)/runtime.stamp $(TOOLS)/tools.stamp      ## build/sbom.json (CycloneDX) of what FairSynth needs to run
	$(CHAIN) sbom

lock: $(VENV)/runtime.stamp     ## build/requirements.lock, for pip install --require-hashes
	$(CHAIN) lock

image-inputs: lock              ## what deploy/*/Dockerfile copy: the lock and the wheel of this tree
	rm -f build/fairsynth-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build .

clean:                          ## remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage *.egg-info
