# `make` alone lists the targets. Everything runs from the checkout; nothing outside it is written
# except Debian packages, and those only as root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
UV := $(BIN)/uv
STAMP := $(VENV)/.stamp

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up -------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## Make .venv with both distributions and every development tool

$(STAMP): requirements/dev.lock pyproject.toml sdk/pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	test -x $(UV) || $(PY) -m pip install --quiet uv
	$(UV) pip install --python $(PY) --quiet --require-hashes -r requirements/dev.lock
	$(UV) pip install --python $(PY) --quiet --no-deps --no-build-isolation -e sdk -e .
	touch $@
