# The commands of this repository. `make demo` and `make test` need Python >= 3.11, pip and make, nothing else.

# Interpreters to try, in this order: the docking code has ready-made wheels for Python 3.11 and 3.12 (Linux, x86-64).
PYTHON ?= python3.12 python3.11 python3 python3.13 python3.14 python
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
BENCH ?= all --quick
FUZZ ?= -max_total_time=300
PYTEST ?=
# What `make check` runs: the unit tests that start no process of Parsl or of chemistry, and one run with a kill.
QUICK := $(addprefix tests/unit/,core events executors fabric monitors cli test_backoff.py test_docs.py test_layout.py)
KILL := tests/integration/test_process_faults.py -k interchange_killed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1
# Parsl starts its interchange and its workers by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-globus kafka-jars test check lint types docs parsl-suite globus-suite globus-engine oldest bench fuzz clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: $(VENV)/.demo-ready ## a docking campaign on three local sites, one of which is killed (DEMO="--help" for options)
	@$(BIN)/diaspora-parsl demo $(DEMO)

demo-globus: $(VENV)/.demo-globus-ready ## the same on three endpoints of an emulated Globus Compute
	@$(BIN)/diaspora-parsl demo --globus $(DEMO)

kafka-jars: ## a Kafka broker for the tests, from Maven Central; without it they run on a mock
	@.ci/kafka

test: $(VENV)/.test-ready ## all tests: many at a time first, then two at a time those that measure time
	@status=0; \
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not serial" $(PYTEST) || status=$$?; \
	$(BIN)/python -m pytest -n 2 --dist worksteal -m serial $(PYTEST) || status=$$?; \
	exit $$status

check: $(VENV)/.dev-ready ## before each commit: lint, types, unit tests, one run with a kill
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy --strict
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not serial" $(QUICK)
	@$(BIN)/python -m pytest -q $(KILL)

lint: $(VENV)/.dev-ready ## ruff, formatting, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(VENV)/.dev-ready ## mypy --strict
	@$(BIN)/mypy --strict

docs: $(VENV)/.dev-ready ## the documentation, into site/
	@$(BIN)/mkdocs build --strict

parsl-suite: ## Parsl's own test suite with pools as its configuration
	@PYTHON="$(PYTHON)" tests/parsl_suite/run.sh

globus-suite: ## Parsl's own tests, and those of globus-compute if they are here, on a local Globus Compute
	@PYTHON="$(PYTHON)" tests/globus_suite/run.sh

globus-engine: ## endpoints of a local Globus Compute with the engine of real ones
	@PYTHON="$(PYTHON)" tests/globus_suite/engine.sh

oldest: ## what is private of Parsl, against the oldest Parsl that is supported
	@PYTHON="$(PYTHON)" tests/contract/oldest.sh

bench: $(VENV)/.bench-ready ## the pool beside Parsl, Dask and Ray (BENCH="all --json out" in full, BENCH="--help" for more)
	@$(BIN)/python benchmarks/run.py $(BENCH)

fuzz: $(VENV)/.fuzz-ready ## the decoder, and all who take what it gives, with made-up bytes (FUZZ="-max_total_time=60")
	@$(BIN)/python tests/fuzz/decode.py build/fuzz $(FUZZ)

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-suite .venv-globus .venv-engine .venv-oldest build dist site *.egg-info

# --- set-up: a second run uses what is installed ---------------------------------------------------------------------

$(VENV)/.created: .ci/venv
	@PYTHON="$(PYTHON)" .ci/venv $(VENV)
	@touch $@

$(VENV)/.demo-ready: EXTRAS := campaigns
$(VENV)/.demo-globus-ready: EXTRAS := campaigns,globus-test
$(VENV)/.test-ready: EXTRAS := campaigns,xtb,globus-test,test
$(VENV)/.bench-ready: EXTRAS := campaigns,xtb,globus-test,test,bench
$(VENV)/.fuzz-ready: EXTRAS := fuzz
$(VENV)/.dev-ready: EXTRAS := campaigns,xtb,globus-test,test,dev
$(VENV)/.%-ready: $(VENV)/.created pyproject.toml
	@echo "Installing diaspora_parsl[$(EXTRAS)] into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet -e ".[$(EXTRAS)]"
	@touch $@
