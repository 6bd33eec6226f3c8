# What a newcomer needs: `make run` and `make test`. Everything lands in .venv, .venv-backfill and
# .work.

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat requirements.txt requirements-dev.txt pyproject.toml 2>/dev/null | cksum | cut -d ' ' -f 1)

# Apache Beam and the local servers need different versions of the same packages.
BEAM_VENV := .venv-backfill
BEAM_BIN := $(BEAM_VENV)/bin
BEAM_READY := $(BEAM_VENV)/.ready-$(shell cat requirements-backfill.txt pyproject.toml 2>/dev/null | cksum | cut -d ' ' -f 1)

# An environment that cannot run is made anew: its Python is gone, or it was moved, so that its
# scripts name an interpreter where none is.
drop_broken = $(shell for ready in $(1)/.ready-*; do \
	[ ! -e "$$ready" ] || { $(1)/bin/python -c '' && [ -x "$$(sed -n '1s/^\#!//p' $(1)/bin/dcm2bq)" ]; } \
		2>/dev/null || rm -f "$$ready"; done)
$(call drop_broken,$(VENV))
$(call drop_broken,$(BEAM_VENV))

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(READY) ## Ingest real DICOM files through the real function, on this machine
	@$(BIN)/dcm2bq local --once

.PHONY: test
test: $(READY) $(BEAM_READY) ## Run every test
	@BIN=$(BIN) BEAM_BIN=$(BEAM_BIN) scripts/run_tests.sh $(PYTEST_ARGS)

.PHONY: soak-backfill
soak-backfill: $(READY) $(BEAM_READY) ## Backfill 20,200 objects while events arrive, and after a kill
	@$(BIN)/pytest --long tests/backfill/test_backfill.py $(PYTEST_ARGS)

.PHONY: check
check: $(READY) ## Check format, lint, types, the locked requirements and Terraform
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory check-lock
	@$(MAKE) --no-print-directory check-terraform

.PHONY: check-terraform
check-terraform: $(READY)
	@scripts/check_terraform.sh

.PHONY: bench
bench: $(READY) $(BEAM_READY) ## Measure against the obvious way, in the same run
	@for each in conversion reading function cold_start backfill; do \
		echo "## $$each"; $(BIN)/python -m benchmarks.bench_$$each $(BENCH_ARGS) || exit 1; echo; done

.PHONY: fuzz
fuzz: $(READY) ## Convert 400,000 mutated DICOM files, and 290,000 objects of wrong structure
	@$(BIN)/python -m tests.dicom.fuzz --count 400000 --seed $${SEED:-1}
	@$(MAKE) --no-print-directory fuzz-structure

.PHONY: fuzz-structure
fuzz-structure: $(READY) ## Look for what mutated objects lose or tell in silence
	@$(BIN)/python -m tests.dicom.fuzz_structure --seed $${SEED:-1}

.PHONY: soak
soak: $(READY) ## Run what holds the guarantees for hours instead of seconds
	@$(BIN)/pytest --long -s tests/reliability $(PYTEST_ARGS)

.PHONY: audit
audit: ## Look for known vulnerabilities in the three locks: function, workers, development
	@[ -x .work/audit/bin/pip-audit ] || { python3 -m venv .work/audit \
		&& .work/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'; }
	@status=0; for each in requirements requirements-backfill requirements-dev; do \
		echo "$$each.txt"; \
		.work/audit/bin/pip-audit --strict --require-hashes --disable-pip -r $$each.txt || status=1; \
	done; exit $$status

.PHONY: format
format: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# requirements.txt is what Google installs with the function: the dependencies of pyproject.toml,
# resolved and hashed. requirements-dev.txt adds what the local stack and the tests need;
# requirements-backfill.txt stands apart.
LOCK := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --generate-hashes \
	--no-config --python-version 3.13 --universal pyproject.toml

.PHONY: lock
lock: $(READY) ## Resolve the requirements anew
	@$(LOCK) --upgrade --output-file requirements.txt
	@$(LOCK) --upgrade --extra local --extra dev --constraint requirements.txt --output-file requirements-dev.txt
	@$(LOCK) --upgrade --extra backfill --extra test --output-file requirements-backfill.txt
	@$(BIN)/python scripts/worker_requirements.py

# The providers of tf/, by version and hash, for every system that it is applied from.
.PHONY: lock-terraform
lock-terraform: ## Resolve the Terraform providers anew: tf/.terraform.lock.hcl
	@cd tf && terraform providers lock \
		-platform=linux_amd64 -platform=linux_arm64 \
		-platform=darwin_amd64 -platform=darwin_arm64 -platform=windows_amd64

.PHONY: check-lock
check-lock: $(READY)
	@mkdir -p .work
	@cp requirements.txt requirements-dev.txt requirements-backfill.txt .work/
	@$(LOCK) --output-file .work/requirements.txt
	@$(LOCK) --extra local --extra dev --constraint requirements.txt --output-file .work/requirements-dev.txt
	@$(LOCK) --extra backfill --extra test --output-file .work/requirements-backfill.txt
	@$(BIN)/python scripts/worker_requirements.py --check
	@( for each in requirements requirements-dev requirements-backfill; do \
		diff -u $$each.txt .work/$$each.txt || exit 1; done ) \
		|| { echo 'the requirements do not follow from pyproject.toml: make lock'; exit 1; }

# The policy scan, in an environment of its own: its dependencies would not go with ours.
SCANNER := .work/checkov-3.3.30

.PHONY: scan
scan: $(READY) $(SCANNER) ## Scan tf/ for what security policies forbid
	@$(SCANNER)/bin/checkov --directory tf --framework terraform --compact --quiet --skip-download

$(SCANNER):
	@$(BIN)/python -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check checkov==$(lastword $(subst -, ,$@)) || { rm -rf $@; exit 1; }

.PHONY: picture
picture: ## Render docs/architecture.svg anew, by Graphviz
	@command -v dot >/dev/null || { echo 'dot is needed: install Graphviz' >&2; exit 1; }
	@dot -Tsvg docs/architecture.dot -o docs/architecture.svg

.PHONY: clean
clean: ## Remove what the other targets made
	@rm -rf $(VENV) $(BEAM_VENV) .work dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Make an environment with the packages of some requirements, and this one, editable.
define set_up
	@set -e; \
	for python in python3 python3.13 "$$(uv python find 3.13 2>/dev/null)"; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then break; fi; \
		python=; \
	done; \
	[ -n "$$python" ] || { echo 'Python 3.13 is needed: install it from https://www.python.org/downloads/ or with "uv python install 3.13"' >&2; exit 1; }; \
	echo "setting up $(1) (once, about a minute) ..."; \
	rm -rf $(1); \
	"$$python" -m venv $(1); \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(2); \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $@
endef

$(READY): | requirements-dev.txt
	$(call set_up,$(VENV),requirements-dev.txt)

$(BEAM_READY): | requirements-backfill.txt
	$(call set_up,$(BEAM_VENV),requirements-backfill.txt)
