# Every target sets itself up: .venv is made from requirements-dev.lock, hashes checked, on first
# use and again whenever the lock changes. Needs nothing but make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The suite starts hundreds of processes: without stored bytecode, each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait for a process or a clock: eight side by side keep two cores busy.
# Handed out one by one, so that the long ones, which come first, go to different workers.
SIDE_BY_SIDE := --numprocesses 8 --maxschedchunk 1
# Tests of these folders only compute: more workers than cores gain nothing.
UNIT := --numprocesses logical --maxschedchunk 1 tests/unit tests/flow tests/chaos

.DEFAULT_GOAL := help
.PHONY: help demo test test-citus unit coverage chaos test-compose test-clients test-deploy test-patroni sbom lint format bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## see covers being refreshed; DEMO_SECONDS=90 stops by itself
	@$(BIN)/refresher demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: $(INSTALLED) ## the test suite; TEST_POSTGRES_URL=... on a server of yours, PYTEST_ARGS=...
	@$(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

CITUS_SUITE := $(addprefix tests/test_,$(addsuffix .py,statements claims write_back \
  application_writes tokens status videos_retry replicas probes outbox missing insert_to_claim removal explain lists \
  pause_of_everything sealing app_limit last_failure reviving tables))
test-citus: $(INSTALLED) ## the statements on the cluster whose coordinator TEST_CITUS_URL names
	@test -n "$(TEST_CITUS_URL)" || { echo 'not run: TEST_CITUS_URL names no cluster' >&2; exit 1; }
	@$(BIN)/pytest --numprocesses 4 --maxschedchunk 1 $(CITUS_SUITE) $(PYTEST_ARGS)

unit: $(INSTALLED) ## only the tests that need no PostgreSQL, process or socket: seconds
	@$(BIN)/pytest $(UNIT) $(PYTEST_ARGS)

coverage: $(INSTALLED) ## the suite again, with branch coverage: fails below 95 %
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-compose: $(INSTALLED) ## docker-compose.yml, on a real Docker engine
	@docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 || \
	  { echo 'error: no Docker engine with compose v2 answers: see docker info' >&2; exit 1; }
	@$(BIN)/pytest -m compose tests/compose $(PYTEST_ARGS)

test-clients: $(INSTALLED) .venv-clients/locked $(if $(shell command -v npm),.node-clients/locked) ## clients and mappers that others have written
	@$(BIN)/pytest -m clients tests/clients $(PYTEST_ARGS)

test-deploy: $(INSTALLED) .venv-deploy/locked ## Kubernetes manifests and SBOM, by their schemas
	@$(BIN)/pytest -m deploy tests/deploy $(PYTEST_ARGS)

test-patroni: $(INSTALLED) ## failovers of a real Patroni cluster; PATRONI_TIMES=20 tells how long each took
ifdef PATRONI_TIMES
	@$(BIN)/python -m tests.patroni --times $(PATRONI_TIMES)
else
	@$(BIN)/pytest -m patroni tests/patroni $(PYTEST_ARGS)
endif

sbom: .venv-deploy/locked .venv-image/locked ## what the image holds, as CycloneDX: sbom.json, or SBOM=...
	@.venv-deploy/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file $(or $(SBOM),sbom.json) .venv-image/bin/python

chaos: $(INSTALLED) ## faults at random, invariants checked; SEED=1,2 CHAOS_SECONDS=60 CHAOS_RUNS=1
	@$(BIN)/python -m tests.chaos --seconds $(or $(CHAOS_SECONDS),60) --runs $(or $(CHAOS_RUNS),1) \
	  $(if $(SEED),--seed $(SEED)) $(if $(CHAOS_REPORT),--report $(CHAOS_REPORT))

lint: $(INSTALLED) ## style, format, types, import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## put the code into the one format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/bench ## the refresher beside its peers, see docs/benchmarks.md; BENCH_ARGS=--help
	@$(BIN)/python -m benchmarks.side_by_side $(BENCH_ARGS)

# uv has a venv of its own, so a lock that cannot be installed can still be mended.
# What is locked stays as it is where it still fits: LOCK_ARGS=--upgrade takes the newest.
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --annotation-style line \
  --custom-compile-command 'make lock' $(LOCK_ARGS)
lock: ## the requirements*.lock files anew from pyproject.toml; LOCK_ARGS=--upgrade
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet 'uv>=0.13,<0.14'
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) pyproject.toml --extra demo --extra plot --group dev --constraint requirements.lock \
	  --constraint requirements-build.lock --output-file requirements-dev.lock
	$(COMPILE) --group bench --constraint requirements-dev.lock \
	  --output-file requirements-bench.lock
	$(COMPILE) --group clients --output-file requirements-clients.lock
	$(COMPILE) --group deploy --output-file requirements-deploy.lock

clean: ## remove what the other targets made
	rm -rf .venv .venv-clients .venv-deploy .venv-image .venv-lock .node-clients sbom.json \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/locked: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: needs Python 3.11 or newer, see $(PYTHON) -V; choose with make PYTHON=...' >&2; \
	    exit 1; }
	@echo 'Making .venv from $< (once, takes about half a minute)'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --require-hashes --requirement $<
	@touch $@

.venv/bench: requirements-bench.lock $(INSTALLED)
	@$(BIN)/pip install --quiet --require-hashes --requirement $<
	@touch $@

# Apart from .venv: they are programs of others, which the tests run as such.
.venv-clients/locked: requirements-clients.lock
	@$(PYTHON) -m venv --clear .venv-clients
	@.venv-clients/bin/pip install --quiet --require-hashes --requirement $<
	@touch $@

# Prisma's tools look for an engine that only its migrations need, and which is in no package.
.node-clients/locked: $(addprefix tests/clients/prisma_app/,package.json package-lock.json schema.prisma)
	@mkdir -p .node-clients && cp $^ .node-clients
	@cd .node-clients && npm ci --silent --no-audit --no-fund --ignore-scripts && \
	  PRISMA_SCHEMA_ENGINE_BINARY=/usr/bin/env node_modules/.bin/prisma generate \
	    --schema schema.prisma >/dev/null
	@touch $@

.venv-deploy/locked: requirements-deploy.lock
	@$(PYTHON) -m venv --clear .venv-deploy
	@.venv-deploy/bin/pip install --quiet --require-hashes --requirement $<
	@touch $@

# As the Dockerfile makes it: the licences and dependencies of packages stand in them, not in the lock.
.venv-image/locked: requirements.lock .venv-deploy/locked
	@$(PYTHON) -m venv --clear --without-pip .venv-image
	@.venv-deploy/bin/pip --python .venv-image install --quiet --only-binary :all: --require-hashes \
	  --requirement $<
	@touch $@

$(INSTALLED): .venv/locked pyproject.toml
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
