# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PORT ?= 8000
ONCE ?=
MINUTES ?= 30
SEED ?=
VENV := .venv
IPRESERVE_VENV := .venv-ipreserve
PY := $(VENV)/bin/python
# make variables that are handed on to what runs
export KUBECONFIG REGISTRY ONCE PORT

.PHONY: help demo up test test-ipreserve test-ledger soak check bench bench-ipreserve e2e clean setup setup-system frontend types

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- set-up ---------------------------------------------------------------------------------------------------------

setup-system:
	@$(PYTHON) dev/bootstrap.py system

$(VENV)/.stamp: requirements.txt requirements-dev.txt ipreserve/requirements.txt dev/bootstrap.py
	@$(PYTHON) dev/bootstrap.py venv $(VENV)
	@touch $@

$(IPRESERVE_VENV)/.stamp: ipreserve/requirements.txt ipreserve/requirements-dev.txt
	@$(PYTHON) -m venv $(IPRESERVE_VENV)
	@$(IPRESERVE_VENV)/bin/pip install --quiet --disable-pip-version-check -r ipreserve/requirements-dev.txt
	@touch $@

frontend/node_modules/.stamp: frontend/package.json frontend/package-lock.json $(VENV)/.stamp
	@$(PYTHON) dev/bootstrap.py npm-ci
	@touch $@

FRONTEND_SOURCES := $(shell find frontend -type f -not -path '*/node_modules/*' -not -path '*/dist/*' \
	\( -name '*.ts' -o -name '*.tsx' -o -name '*.css' -o -name '*.html' -o -name '*.json' -o -name '*.svg' \) 2>/dev/null)

frontend/dist/index.html: frontend/node_modules/.stamp $(FRONTEND_SOURCES)
	@$(PYTHON) dev/bootstrap.py npm run build
	@touch $@

frontend: frontend/dist/index.html ## build the single-page app

setup: setup-system $(VENV)/.stamp frontend/dist/index.html ## set up everything the other targets need

# --- use ------------------------------------------------------------------------------------------------------------

demo: setup ## order a Redis cluster on the embedded target and use it; ONCE=1 stops after the proof
	@$(PY) -m dev.demo --port $(PORT) $(if $(ONCE),--once)

up: setup ## the portal and the embedded target, without an order; serves until Ctrl-C
	@$(PY) -m dev.demo --port $(PORT) --no-order

# --- prove ----------------------------------------------------------------------------------------------------------

check: setup-system $(VENV)/.stamp frontend/node_modules/.stamp ## style, types, import contracts, schema and type drift
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy .
	@$(VENV)/bin/lint-imports
	@$(PY) -m dev.openapi --check
	@DJANGO_SETTINGS_MODULE=dev.static_settings $(PY) -m dev.checks
	@$(PYTHON) dev/bootstrap.py npm run types:check
	@$(PYTHON) dev/bootstrap.py npm run check

test: setup ## every test, on real services and the embedded target
	@$(PYTHON) dev/bootstrap.py npm test
	@$(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-ipreserve: setup-system $(IPRESERVE_VENV)/.stamp ## ipreserve's tests, with only its own requirements installed
	@$(IPRESERVE_VENV)/bin/python -m pytest -c ipreserve/pytest.ini ipreserve

test-ledger: setup ## 10,000 attempts against one tenant's limits by processes that are killed; up to 15 minutes
	@BERTH_TEST_LEDGER_SECONDS=900 $(PY) -m pytest -q provisioning/tests/test_quota_processes.py

soak: setup ## change and break a Redis Cluster while a client writes: MINUTES=30, SEED=... draws the same again
	@$(PY) -m dev.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

e2e: setup ## the end-to-end tests; KUBECONFIG=... runs them on any cluster, REGISTRY=... with mirrored images
	@$(PY) -m pytest tests/e2e

bench: setup ## speed, side by side with kubectl and redis-cli; times to recovery
	@$(PY) -m dev.bench
	@$(PY) -m dev.bench_api
	@$(PY) -m dev.bench_recovery
	@$(PY) -m dev.bench_changes

bench-ipreserve: setup-system $(IPRESERVE_VENV)/.stamp ## what deletions wait for: ipreserve beside one that patches per request
	@$(IPRESERVE_VENV)/bin/python -m dev.bench_ipreserve

types: $(VENV)/.stamp frontend/node_modules/.stamp ## regenerate the OpenAPI document and the frontend's types
	@$(PY) -m dev.openapi --write
	@$(PYTHON) dev/bootstrap.py npm run types

clean: ## remove what make made in this folder, and the embedded target's state
	@if [ -x $(PY) ]; then $(PY) -m sandbox down --all --wipe; fi
	@rm -rf $(VENV) $(IPRESERVE_VENV) frontend/node_modules frontend/dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
