# `make` sets up, `make run` runs the demo, `make test` runs the tests. `make help` lists all targets.

SHELL := /bin/bash
BIN := .venv/bin
UV := $(or $(wildcard .setup/uv/bin/uv),uv)
CONFIG := movielens_100k
WORKERS := 2 # processes of `make test`

.DEFAULT_GOAL := setup
.PHONY: setup run test test-long test-engines test-images lint type imports bench docs lock clean help

setup: ## create .venv with the locked packages (PYTHON=... names the Python that starts it)
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.10 python3.9 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then \
	    exec "$$python" tools/create_environment.py; \
	  fi; \
	done; \
	echo "error: Python 3.9 or newer is needed to start the set-up: apt-get install python3" >&2; \
	exit 1

run: setup ## download MovieLens 100K, run the pipeline and query the served model
	@$(BIN)/two-tower data movielens-100k
	@$(BIN)/two-tower run --config $(CONFIG)
	@$(BIN)/two-tower recommend --config $(CONFIG) --query-id 42 -k 10
	@echo
	@echo "Configuration  configs/$(CONFIG).yaml"
	@echo "Artifacts      runs/$(CONFIG)/"
	@echo "Served models  runs/$(CONFIG)/serving/"
	@echo "Next           $(BIN)/two-tower recommend --config $(CONFIG) --query-id 7 -k 10"

test: setup ## run every test that a release needs
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-long: setup ## run the tests that take minutes: orchestrators, step by step, ten days
	@$(BIN)/python -m pytest -m "long and not engines and not images"

# The checksum of all jars, in the order of their names. Maven also checks each one.
FLINK_SHA256 := 6d588e03f2230a69ef85608ccff62e89c5290dcb74b5bfed10ae71e590ed60e4

test-engines: setup ## run the Beam components on a Flink cluster of this machine (needs Java 17 and Maven)
	@mvn -B -q -C -f deploy/beam/flink_cluster/job_server.xml -Djars="$(CURDIR)/.flink" \
	  dependency:copy-dependencies
	@export LC_ALL=C; cat .flink/*.jar | sha256sum --check --status <(echo "$(FLINK_SHA256)  -") || \
	  { echo "error: the jars in .flink must have the pinned checksum: remove .flink and try again" >&2; exit 1; }
	@$(BIN)/python -m pytest -m engines

test-images: setup ## build and run the images as root (needs Debian's buildah and debootstrap)
	@$(BIN)/python -m pytest -s -m images tests/deploy

lint: setup ## check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: setup ## check types with mypy, strict
	@$(BIN)/mypy

imports: setup ## check import layers with import-linter, and that there are no import cycles
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/test_imports.py

bench: setup ## run the benchmarks (takes minutes; needs a quiet machine)
	@$(BIN)/python -m benchmarks

docs: setup ## write the tables of settings in docs/configuration.md from their descriptions
	@tables="$$($(BIN)/two-tower config --markdown)" && sed -i '/^## Top level/,$$d' docs/configuration.md && \
	  echo "$$tables" >> docs/configuration.md

LOCK_OPTIONS := --python-version 3.10 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header -q

lock: setup ## compile setup.py into the lock files: project, server, Kubeflow, Airflow
	@$(UV) pip compile setup.py --extra pipeline --extra dev $(LOCK_OPTIONS) -o requirements.lock && \
	  $(UV) pip compile setup.py --extra server $(LOCK_OPTIONS) \
	    -c requirements.lock -o serving/requirements.lock && \
	  $(UV) pip compile setup.py --extra kubeflow $(LOCK_OPTIONS) \
	    -c <(sed -n 's/^\([a-z0-9-]*==[^ ]*\).*/\1/p' requirements.lock | grep -v '^urllib3==') \
	    -o deploy/kubeflow/requirements.lock && \
	  $(UV) pip compile setup.py --extra airflow $(LOCK_OPTIONS) -o deploy/airflow/requirements.lock

clean: ## remove the environment and all caches (data/ and runs/ stay)
	rm -rf .venv .setup build *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18
