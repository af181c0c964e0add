# The front door: every target says what it does, and works from a fresh checkout.
# What is built goes to a cache outside the checkout; nothing is left in it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nightcap
VENV := $(CACHE)/venv-$(shell cat requirements/dev.txt requirements/control.txt 2>/dev/null | sha256sum | cut -c1-12)
PYTHON := $(VENV)/bin/python
export PATH := $(VENV)/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## say what the targets do
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: tools
tools: ## install what the checks and tests need (Python packages, Debian packages)
	@./tests/prepare $(VENV)

.PHONY: check
check: tools ## format, lint, types, import rules
	ruff format --check .
	ruff check .
	mypy
	lint-imports

# A test has five minutes, its fixtures included; the first build takes longer.
.PHONY: parts
parts: tools ## build what the tests run on: Kubernetes, an S3 server, images (the first time 10 to 20 minutes)
	@$(PYTHON) -m tests.cluster build

.PHONY: unit
unit: tools ## unit tests, and packets in network namespaces of their own
	$(PYTHON) -m pytest -n 2 tests/unit tests/netns

# Mostly waiting for a cluster, so more at once than there are cores.
.PHONY: e2e
e2e: $(if $(KUBECONFIG),tools,parts) ## end-to-end tests on the disposable cluster, or on KUBECONFIG's
	$(PYTHON) -m pytest -n 4 tests/e2e

.PHONY: test
test: check parts ## all checks and tests that CI runs (10 minutes with a warm cache)
	$(PYTHON) -m pytest -n 4 --maxschedchunk=1 tests

.PHONY: test-all
test-all: test ## what CI runs, and what takes longer or needs more parts built; fuzzing
	$(PYTHON) -m pytest -n 2 -m long --timeout=1800 tests
	NIGHTCAP_KUBERNETES=oldest $(PYTHON) -m pytest -n 2 --timeout=1800 tests/apiserver
	$(MAKE) fuzz

.PHONY: fuzz
FUZZ_SECONDS := 600
FUZZ_REQUESTS := 100000
fuzz: tools ## any bytes through the readers of capture files and the webhook, any requests at retrieval (FUZZ_SECONDS=600)
	@mkdir -p $(CACHE)/fuzz-formats $(CACHE)/fuzz-admission
	$(PYTHON) -m tests.fuzz.formats $(CACHE)/fuzz-formats -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -artifact_prefix=$(CACHE)/fuzz-formats-
	$(PYTHON) -m tests.fuzz.admission $(CACHE)/fuzz-admission -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -artifact_prefix=$(CACHE)/fuzz-admission-
	$(PYTHON) -m tests.fuzz.requests --count=$(FUZZ_REQUESTS)

.PHONY: soak
SOAK := --kills 1000 --pods 20
soak: tools ## 1 000 random kills while 20 pods capture numbered packets (SOAK="--kills N --pods N")
	nice $(PYTHON) -m tests.soak $(SOAK)

.PHONY: demo
demo: tools ## the walk-through on a disposable real cluster, or on KUBECONFIG's
	$(PYTHON) -m demo

.PHONY: cluster
cluster: tools ## boot (or reuse) the disposable cluster and print its KUBECONFIG
	@$(PYTHON) -m tests.cluster up
	@$(PYTHON) -m tests.cluster env

.PHONY: cluster-down
cluster-down: tools ## end the disposable cluster, of every number, without a trace
	@$(PYTHON) -m tests.cluster down --all

.PHONY: image
image: tools ## build the images, and load them into the disposable cluster if it runs
	@$(PYTHON) -m tests.cluster images

.PHONY: install
install: tools ## install into the current KUBECONFIG (CONTROL_IMAGE=, SIDECAR_IMAGE=, CALICO=1)
	@$(PYTHON) -m demo.installation install

.PHONY: uninstall
uninstall: tools ## remove it from the current KUBECONFIG
	@$(PYTHON) -m demo.installation uninstall

.PHONY: bench
bench: tools ## benchmarks beside their peers (ONLY=NAME for one); results on stdout
	@$(PYTHON) -m bench $(ONLY)

.PHONY: lock
lock: tools ## pin the newest versions that requirements/*.in allow
	cd requirements && uv pip compile -q --upgrade --python-version 3.11 --no-header --no-emit-index-url control.in -o control.txt
	cd requirements && uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-emit-index-url -c control.txt dev.in -o dev.txt
