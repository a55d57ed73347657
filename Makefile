# `make` sets up, `make run` does the main job, `make test` checks everything. `make help` lists all.

SHELL := /bin/bash
BIN := .venv/bin
CONFIG := movielens_100k
WORKERS := 2 # processes of `make test`

.DEFAULT_GOAL := setup
.PHONY: setup run test test-long lint type imports bench lock clean help

setup: ## make .venv with the locked packages (PYTHON=... gives a Python 3.10 of your own)
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.10 python3.9 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then \
	    exec "$$python" tools/create_environment.py; \
	  fi; \
	done; \
	echo "error: a Python 3.9 or newer is needed to start the set-up: apt-get install python3" >&2; \
	exit 1

run: setup ## fetch MovieLens 100K, run the pipeline and ask the model it serves
	@$(BIN)/two-tower data movielens-100k
	@$(BIN)/two-tower run --config $(CONFIG) || [ $$? -eq 4 ] # 4: nothing new, all is served
	@$(BIN)/two-tower recommend --config $(CONFIG) --query-id 42 -k 10
	@echo
	@echo "Where everything is:"
	@echo "  data     data/$(CONFIG)/"
	@echo "  run      runs/$(CONFIG)/        artifacts, metadata and metrics"
	@echo "  model    runs/$(CONFIG)/serving/  one folder for each pushed version"
	@echo "  config   configs/$(CONFIG).yaml"
	@echo "Ask for another user:  $(BIN)/two-tower recommend --config $(CONFIG) --query-id 7 -k 10"

test: setup ## every test that a release needs
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-long: setup ## the tests that take minutes: orchestrators, step by step, ten days
	@$(BIN)/python -m pytest -m long

lint: setup ## ruff: style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: setup ## mypy, strict
	@$(BIN)/mypy

imports: setup ## import-linter: the layers
	@$(BIN)/lint-imports

bench: setup ## the benchmarks (minutes; on a quiet machine)
	@$(BIN)/python -m benchmarks

LOCK_OPTIONS := --python-version 3.10 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header -q

lock: setup ## compile setup.py into the lock files: all, the server's, the cluster's, Airflow's
	@uv="$$($(BIN)/python tools/find_uv.py)" && \
	  "$$uv" pip compile setup.py --extra pipeline --extra dev $(LOCK_OPTIONS) -o requirements.lock && \
	  "$$uv" pip compile setup.py --extra server $(LOCK_OPTIONS) \
	    -c requirements.lock -o serving/requirements.lock && \
	  "$$uv" pip compile setup.py --extra kubeflow $(LOCK_OPTIONS) \
	    -c <(sed -n 's/^\([a-z0-9-]*==[^ ]*\).*/\1/p' requirements.lock | grep -v '^urllib3==') \
	    -o deploy/kubeflow/requirements.lock && \
	  "$$uv" pip compile setup.py --extra airflow $(LOCK_OPTIONS) -o deploy/airflow/requirements.lock

clean: ## remove the environment and every cache (data/ and runs/ stay)
	rm -rf .venv .setup build *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18
