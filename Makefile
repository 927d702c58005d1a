# `make` alone lists the targets. Everything stays inside the checkout, except for Debian packages,
# which are installed only as root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# The interpreter that .venv is made of; one that was built without profiles is a third slower than Debian's.
PYTHON ?= python3
UV := $(BIN)/uv
STAMP := $(VENV)/.stamp
MINISTACK := .venv-ministack
ANSIBLE := .venv-ansible
PACKAGER := .venv-packages
WEB := .venv-web
# Some machines forbid bytecode; then each process of a test compiles everything that it imports.
unexport PYTHONDONTWRITEBYTECODE
SAY := @printf '\033[1m%s\033[0m\n'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-zA-Z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '  make %-12s %s\n' bench-NAME \
	  "Run one benchmark: $$(ls bench | sed -n 's/^\([a-z][a-z0-9_]*\)\.py$$/\1/p' | tr _ - | xargs)"

# ---- set-up -------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## Make .venv with both distributions and every tool (does nothing when it is there)

$(STAMP): requirements/dev.lock pyproject.toml sdk/pyproject.toml sdk/shoal/version.py sdk/hatch_build.py
	$(SAY) "setting up $(VENV)"
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else \
	    echo "$(PYTHON) cannot make virtual environments; first run:  sudo apt-get install -y python3-venv" >&2; \
	    exit 1; \
	  fi; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@want="$$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/dev.lock)"; \
	  [ "$$($(UV) --version 2>/dev/null | cut -d' ' -f2)" = "$$want" ] || \
	  $(PY) -m pip install --quiet --disable-pip-version-check "uv==$$want"
	@# pip stands in where only pip is configured for the network that this machine is on.
	@$(UV) pip install --python $(PY) --quiet --compile-bytecode --require-hashes -r requirements/dev.lock || \
	  $(PY) -m pip install --quiet --require-hashes -r requirements/dev.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e sdk -e .
	@touch $@

# An S3 server for the tests. It pins a botocore that ours cannot have, so it lives by itself.
$(MINISTACK)/.stamp: $(STAMP) requirements/ministack.lock
	$(SAY) "setting up $(MINISTACK)"
	@$(PY) -m venv --clear $(MINISTACK)
	@$(UV) pip install --python $(MINISTACK)/bin/python --quiet --compile-bytecode --require-hashes -r requirements/ministack.lock || \
	  $(MINISTACK)/bin/python -m pip install --quiet --require-hashes -r requirements/ministack.lock
	@touch $@

# Ansible and its linter pin what they need, too.
$(ANSIBLE)/.stamp: $(STAMP) requirements/ansible.lock
	$(SAY) "setting up $(ANSIBLE)"
	@$(PY) -m venv --clear $(ANSIBLE)
	@$(UV) pip install --python $(ANSIBLE)/bin/python --quiet --compile-bytecode --require-hashes -r requirements/ansible.lock || \
	  $(ANSIBLE)/bin/python -m pip install --quiet --require-hashes -r requirements/ansible.lock
	@touch $@

# What pages use to speak with a gateway, of npm; its modules are given to a browser as they are.
$(WEB)/.stamp: requirements/web/package.json requirements/web/package-lock.json
	$(SAY) "setting up $(WEB)"
	@.ci/system gateway
	@mkdir -p $(WEB) && cp $^ $(WEB)
	@cd $(WEB) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

# What makes and checks packages, which the product and its tests do without.
$(PACKAGER)/.stamp: $(STAMP) requirements/packages.lock
	$(SAY) "setting up $(PACKAGER)"
	@$(PY) -m venv --clear $(PACKAGER)
	@$(UV) pip install --python $(PACKAGER)/bin/python --quiet --compile-bytecode --require-hashes -r requirements/packages.lock || \
	  $(PACKAGER)/bin/python -m pip install --quiet --require-hashes -r requirements/packages.lock
	@touch $@

.PHONY: packages
packages: $(PACKAGER)/.stamp ## Wheels of the last commit, their SBOM and their hashes, into dist/ (COMMIT=, FOLDER=)
	@[ -n "$(COMMIT)" ] || [ -z "$$(git status --porcelain --untracked-files=no)" ] || \
	  echo "what is not committed does not get in" >&2
	@.ci/packages "$(or $(COMMIT),HEAD)" "$(or $(FOLDER),dist)"

.PHONY: system
system: ## Install the Debian packages that tests and demo use (as root; else say how)
	@.ci/system

.PHONY: lock
lock: $(STAMP) ## Resolve requirements/*.lock anew
	$(LOCK) --group dev --extra gateway --extra traces pyproject.toml -o requirements/dev.lock
	$(LOCK) pyproject.toml -o requirements/server.lock
	$(LOCK) --extra gateway pyproject.toml -o requirements/gateway.lock
	$(LOCK) --extra traces pyproject.toml -o requirements/traces.lock
	$(LOCK) requirements/ministack.in -o requirements/ministack.lock
	$(LOCK) requirements/ansible.in -o requirements/ansible.lock
	$(LOCK) requirements/packages.in -o requirements/packages.lock

# Universal and hashed; no header and no annotations, so that no address of a registry gets in.
LOCK = $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
  --no-emit-package shoal

# ---- contracts ----------------------------------------------------------------------------------

PROTOS = $(wildcard proto/shoal/v1/*.proto)
PROTO_OUT ?= sdk

.PHONY: proto
proto: $(STAMP) ## Generate sdk/shoal/v1 from proto/shoal/v1
	@mkdir -p $(PROTO_OUT)/shoal/v1
	@rm -f $(PROTO_OUT)/shoal/v1/*_pb2*
	@# google/rpc comes from googleapis-common-protos, google/protobuf from grpc_tools itself.
	@if [ -n "$(PROTOS)" ]; then PATH="$(BIN):$$PATH" $(PY) -m grpc_tools.protoc \
	  -I proto -I "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --python_out=$(PROTO_OUT) --mypy_out=quiet:$(PROTO_OUT) \
	  --grpc_python_out=$(PROTO_OUT) --mypy_grpc_out=quiet,only_async:$(PROTO_OUT) \
	  $(PROTOS); fi

# ---- checks -------------------------------------------------------------------------------------

LINTERS := lint-ruff lint-mypy lint-pyright lint-imports lint-buf

.PHONY: lint $(LINTERS)
lint: $(STAMP) ## Style, types, layers and contracts: ruff, mypy, pyright, import-linter, buf
	@$(MAKE) --no-print-directory --keep-going $(LINTERS)

lint-ruff:
	$(SAY) "ruff"
	@$(BIN)/ruff check --quiet --output-format=concise .
	@$(BIN)/ruff format --quiet --check .

lint-mypy:
	$(SAY) "mypy"
	@$(BIN)/mypy

lint-pyright:
	$(SAY) "pyright"
	@$(BIN)/pyright

lint-imports:
	$(SAY) "import-linter"
	@$(BIN)/lint-imports --no-logo

lint-buf:
	$(SAY) "buf"
	@if [ -n "$(PROTOS)" ]; then $(BIN)/buf lint && $(BIN)/buf format --diff --exit-code; fi
	@# What main promises is kept; nothing to compare with before main has contracts.
	@main="$$(git rev-parse --verify --quiet main || git rev-parse --verify --quiet origin/main || true)"; \
	  if [ -n "$$main" ] && [ -n "$$(git ls-tree -r --name-only "$$main" proto)" ]; then \
	    $(BIN)/buf breaking --against "$$(git rev-parse --git-common-dir)#ref=$$main"; fi

.PHONY: lint-ansible
lint-ansible: $(ANSIBLE)/.stamp ## The playbooks and roles of deploy/ansible; its lane does it, too
	$(SAY) "ansible-lint"
	@cd deploy/ansible && PATH="$(abspath $(ANSIBLE))/bin:$$PATH" LC_ALL=C.UTF-8 ansible-lint --offline -q

.PHONY: format
format: $(STAMP) ## Let ruff and buf put the source in form
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .
	@if [ -n "$(PROTOS)" ]; then $(BIN)/buf format --write; fi

# What CI runs: rows of lanes side by side, and in a row one lane after the other (.ci/lanes). A lane is named here
# and has a target lane-NAME below.
# Lanes share the checkout, /tmp and the loopback interface, so each test brings folders and ports of its own.
# Lanes with a docker daemon are in one row, since there can be one such daemon at a time.
LANES := unit,compose,arm64,ansible,gateway integration sim,packages,upgrade,metrics,identity,edge

comma := ,
.PHONY: test $(patsubst %,lane-%,$(subst $(comma), ,$(LANES)))
test integration edge lane-edge lane-gateway lane-integration: export SHOAL_MINISTACK := $(abspath $(MINISTACK)/bin/ministack)
test: setup system $(MINISTACK)/.stamp ## Everything that CI runs, in lanes side by side
	@.ci/lanes $(LANES)

# One after the other: it reckons all the time, and the other lane needs the second core.
lane-unit: lint unit
lane-identity: identity
lane-integration: $(STAMP) system $(MINISTACK)/.stamp
	@PY=$(PY) .ci/tests integration tests/integration tests/lab $(patsubst %,--ignore=%,$(IDENTITY) $(EDGE) $(GATEWAY))
lane-edge: $(STAMP) system $(MINISTACK)/.stamp
	@PY=$(PY) .ci/tests edge $(EDGE)
.PHONY: lane-gateway
lane-gateway: $(STAMP) system $(MINISTACK)/.stamp $(WEB)/.stamp ## The contract by curl and in Chromium, behind nginx, with and without a role
	@.ci/system gateway
	@PY=$(PY) .ci/tests gateway $(GATEWAY) tests/lanes/gateway
# Whenever the others leave a core: they wait for real time, and this one does not.
lane-sim: $(STAMP)
	@nice -n 15 $(MAKE) --no-print-directory sim-mutants
	@nice -n 15 $(MAKE) --no-print-directory sim SECONDS=240
	@nice -n 15 $(MAKE) --no-print-directory sim SHAPES=1 SECONDS=60

.PHONY: lane-compose
lane-compose: $(STAMP) ## The shipped compose file, built and run; docs/compose.md carried out (as root)
	@.ci/system compose
	@$(PY) -m tests.kit.docker $(PY) -m pytest tests/lanes/compose --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: lane-upgrade
lane-upgrade: $(STAMP) ## The newest release and this build in one cluster, up and back under a running pipeline
	@PY=$(PY) .ci/tests upgrade tests/lanes/upgrade --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: lane-metrics
lane-metrics: $(STAMP) ## A real Prometheus over a real cluster: rules, alerts and dashboards have data
	@.ci/system metrics
	@PY=$(PY) .ci/tests metrics tests/lanes/metrics --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: dashboards
dashboards: $(STAMP) ## Write deploy/grafana from tests/kit/dashboards.py
	@$(PY) -m tests.kit.dashboards

.PHONY: lane-packages
lane-packages: $(PACKAGER)/.stamp ## A release, and docs/packages.md carried out with nothing else
	@$(PY) -m pytest tests/lanes/packages --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: lane-arm64
lane-arm64: $(STAMP) ## The image of the agent for aarch64, built and run by qemu beside a native agent (as root)
	@.ci/system arm64
	@$(PY) -m tests.kit.docker $(PY) -m pytest tests/lanes/arm64 --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: lane-ansible
lane-ansible: $(ANSIBLE)/.stamp ## docs/fleet.md over ssh, on containers with systemd, and ansible-lint beside it
	@.ci/system ansible
	@$(MAKE) --no-print-directory lint-ansible & lint=$$!; \
	  $(PY) -m pytest tests/lanes/ansible --log-cli-level=INFO --log-cli-format='%(message)s'; wait $$lint

# Not in LANES: whoever changes services/archive runs it.
.PHONY: lane-radosgw
lane-radosgw: $(STAMP) ## The archive and the inputs of jobs at the strict S3 server, radosgw (as root)
	@.ci/system radosgw
	@$(PY) -m pytest tests/lanes/radosgw --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: unit
unit: $(STAMP) ## Tests that need no server: unit, property, simulation, architecture
	@$(PY) -m pytest tests/unit tests/property tests/simulation tests/architecture

.PHONY: integration
integration: $(STAMP) system $(MINISTACK)/.stamp ## Tests on real servers and real processes
	@$(PY) -m pytest tests/integration tests/lab

# Parts of `integration` that run in shorter lanes.
IDENTITY := tests/integration/identity tests/integration/access
GATEWAY := tests/integration/gateway
EDGE := $(addprefix tests/integration/,edge archive events jobsdk keeper sandbox)

.PHONY: edge
edge: $(STAMP) system $(MINISTACK)/.stamp ## Of those, jobs on boards: S3, SQS and MQTT, cases E1 to E14
	@$(PY) -m pytest $(EDGE)

.PHONY: identity
identity: $(STAMP) system ## Of those, the tests of identity alone
	@PY=$(PY) .ci/tests identity $(IDENTITY)

.PHONY: sim sim-mutants
sim: $(STAMP) ## Histories of the whole mesh in virtual time (SEEDS=10000, SECONDS=300, SEED=17 for one again; SHAPES=1: streams)
	@PYTHONHASHSEED=0 $(PY) -m tests.simulation.mesh $(if $(SEED),--seed $(SEED)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(SHAPES),--shapes) $(if $(SEED)$(SEEDS)$(SECONDS),,--seeds 100)

.PHONY: fuzz-bundles
fuzz-bundles: $(STAMP) ## Lay mutated archives out; nothing may appear outside (ARCHIVES=100000, SEED=N the first)
	@$(PY) -m tests.property.agent.mutated_archives --archives $(or $(ARCHIVES),100000) --seed $(or $(SEED),0)

sim-mutants: $(STAMP) ## Plant mistakes in the product; the histories have to find each (ONLY=name)
	@PYTHONHASHSEED=0 $(PY) -m tests.simulation.mesh --mutants $(ONLY)

# ---- seeing it work -----------------------------------------------------------------------------

.PHONY: demo
demo: setup system ## A cluster on this machine runs a pipeline over real video (KILL=agent kills one)
	@$(PY) -m compose.demo $(if $(KILL),--kill $(KILL))

.PHONY: edge-task
edge-task: setup system $(MINISTACK)/.stamp ## A task of the edge-analytics dashboard, from S3, SQS and MQTT to its results in S3
	@$(PY) -m compose.edge_task --ministack $(MINISTACK)/bin/ministack

.PHONY: boards
boards: setup system ## Carry out docs/boards.md: three boards as network namespaces (as root; integration runs it, too)
	@CI=true $(PY) -m pytest tests/lab/cluster/test_boards_page.py --log-cli-level=INFO --log-cli-format='%(message)s'

.PHONY: bench-streams chaos-streams
bench-streams: $(STAMP) ## The stream figures beside their peers (ROUNDS=3 ONLY=P1,P9 QUICK=1 FULL=1 TLS=1)
	@$(PY) -m bench.streams

chaos-streams: $(STAMP) ## Ten million records while everything is killed (RECORDS= FAULTS= SEED=)
	@$(PY) -m bench.streams.chaos $(if $(RECORDS),--records $(RECORDS)) \
	  $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

.PHONY: profile-jobs
profile-jobs: $(STAMP) ## Where the time of a short job goes, by process, step and system call (JOBS=1000 SANDBOX=none)
	@$(PY) -m bench.job_profile

bench-%: $(STAMP)
	@$(PY) -m bench.$(subst -,_,$*)

.PHONY: clean
clean: ## Remove everything that was made, the environment too
	rm -rf $(VENV) $(MINISTACK) $(ANSIBLE) $(PACKAGER) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
