# `make help` lists the targets.  Each brings what it needs (.ci/setup), and a second run does not.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
FABRIC ?= reflector
# Tests with daemons at a time: most of them wait, and two cores have room for four.
WORKERS ?= 4

# A cluster to test against is named on the command line; one in the environment may be somebody's own.
unexport KUBECONFIG
CLUSTER := $(if $(filter command,$(firstword $(origin KUBECONFIG))),$(KUBECONFIG))

.PHONY: demo test kube test-e2e check lock protos bench clean help

demo: ## Show pods reaching each other, and a Kubernetes cluster (FABRIC=mesh, frr, bird or kubernetes for one)
	@.ci/setup $(if $(filter frr bird,$(FABRIC)),test,demo)
	@$(if $(filter kubernetes,$(FABRIC)),,$(BIN)/podbgpd lab --fabric $(FABRIC))
	@$(if $(filter kubernetes,$(FABRIC)),$(BIN)/podbgpd lab --kubernetes)
	@$(if $(filter default file,$(origin FABRIC)),printf '\n' && $(BIN)/podbgpd lab --kubernetes --short)

test: ## Run every test that needs no Kubernetes: unit, property, interop with real daemons, end to end
	@.ci/setup test
	@$(BIN)/pytest tests/unit tests/property -m 'not alone' --numprocesses auto --dist loadfile
	@$(BIN)/pytest tests/e2e tests/interop -m 'not alone' --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
	@$(BIN)/pytest -m alone

kube: ## Build the real Kubernetes components, once, in some minutes (Debian 12)
	@.ci/setup test
	@.ci/kube

test-e2e: ## Test with the real Kubernetes components (KUBECONFIG=FILE: against that cluster)
	@.ci/setup test
	@$(if $(CLUSTER),,.ci/kube)
	@$(BIN)/pytest tests/kube $(if $(CLUSTER),--kubeconfig '$(CLUSTER)')

check: ## Lint, formatting, types, layers, generated code
	@.ci/setup test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@.ci/protos --check

# Hashes of the public index only, whatever this machine's pip is set up with.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= \
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
	--no-emit-options $(UPGRADE)

lock: ## Write the lock files again from pyproject.toml (UPGRADE=--upgrade for newer versions)
	@.ci/setup test
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) --only-build-deps --build-deps-for editable --build-deps-for wheel \
		--output-file requirements-build.lock pyproject.toml
	@$(COMPILE) --extra dev --constraint requirements.lock --constraint requirements-build.lock \
		--output-file requirements-dev.lock pyproject.toml

protos: ## Generate api/v1 from protos
	@.ci/setup test
	@.ci/protos

bench: ## Measure against the rivals, an hour and more (BENCH=agent, install, codec, reflector or kube for one)
	@.ci/setup test
	@$(BIN)/python -m bench $(BENCH)

clean: ## Remove what the other targets made in this folder
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this
	@sed -n 's/^\([a-z0-9-]*\): ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10
