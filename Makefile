# All that a newcomer needs is `make run` and `make test`. Everything is written to .venv,
# .venv-backfill and .work, and to dcm2bq in the user's cache folder.
#
# PYTHON=/path/to/python chooses the interpreter; without it, scripts/find_python.sh does.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# A module is compiled when it is first imported, not in every process that imports it.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell { cat requirements.txt requirements-dev.txt pyproject.toml; echo '$(PYTHON)'; } 2>/dev/null | cksum | cut -d ' ' -f 1)

# Apache Beam and the local servers need different versions of the same packages.
BEAM_VENV := .venv-backfill
BEAM_BIN := $(BEAM_VENV)/bin
BEAM_READY := $(BEAM_VENV)/.ready-$(shell { cat requirements-backfill.txt pyproject.toml; echo '$(PYTHON)'; } 2>/dev/null | cksum | cut -d ' ' -f 1)

# The Python versions for which every package of an environment has a wheel, the preferred first.
VERSIONS := 3.13 3.14 3.12
BEAM_VERSIONS := 3.13 3.14

# Recreate an environment that cannot run: its Python was removed, or it was moved, so that its
# scripts name an interpreter that does not exist.
drop_broken = $(shell for ready in $(1)/.ready-*; do \
	[ ! -e "$$ready" ] || { $(1)/bin/python -c '' && [ -x "$$(sed -n '1s/^\#!//p' $(1)/bin/dcm2bq)" ]; } \
		2>/dev/null || rm -f "$$ready"; done)
$(call drop_broken,$(VENV))
$(call drop_broken,$(BEAM_VENV))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(READY) ## Ingest real DICOM files with the real function, on this machine
	@$(BIN)/dcm2bq local --once

.PHONY: test
test: environments ## Run every test
	@BIN=$(BIN) BEAM_BIN=$(BEAM_BIN) scripts/run_tests.sh $(PYTEST_ARGS)

.PHONY: environments
environments:
	@$(MAKE) --no-print-directory --jobs=2 $(READY) $(BEAM_READY)

.PHONY: test-light
test-light: $(READY) ## Run the tests that do not need BigQuery, on any supported Python
	@$(BIN)/pytest $(LIGHT) $(PYTEST_ARGS)

# The local BigQuery needs Python 3.13. On others, the few of these that use it are skipped.
LIGHT := tests/unit tests/dicom tests/cli tests/gcs tests/scripts tests/release

.PHONY: coverage
coverage: environments ## Run every test, and measure the lines that run in any process
	@BIN=$(BIN) BEAM_BIN=$(BEAM_BIN) scripts/coverage.sh $(PYTEST_ARGS)

.PHONY: soak-backfill
soak-backfill: environments ## Backfill 20,200 objects while events arrive, and after being killed
	@$(BIN)/pytest --long tests/backfill/test_backfill.py $(PYTEST_ARGS)

.PHONY: check
check: $(READY) ## Check format, lint, spelling, types, the locked requirements and Terraform
	@$(MAKE) --no-print-directory check-code
	@$(MAKE) --no-print-directory check-lock
	@$(MAKE) --no-print-directory check-terraform

.PHONY: check-code
check-code: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/typos
	@$(BIN)/validate-pyproject pyproject.toml >/dev/null
	@$(BIN)/mypy

.PHONY: check-terraform
check-terraform: $(READY)
	@scripts/check_terraform.sh

.PHONY: bench
bench: environments ## Measure the cost beside that of the obvious implementation
	@for name in conversion reading archives function cold_start backfill lookups; do \
		echo "## $$name"; $(BIN)/python -m benchmarks.bench_$$name $(BENCH_ARGS) || exit 1; echo; done

.PHONY: fuzz
fuzz: $(READY) ## Convert 400,000 mutated DICOM files and 290,000 malformed objects
	@$(BIN)/python -m tests.dicom.fuzz --count 400000 --seed $${SEED:-1}
	@$(MAKE) --no-print-directory fuzz-structure

.PHONY: fuzz-structure
fuzz-structure: $(READY) ## Look for elements of malformed objects that are lost or altered without a warning
	@$(BIN)/python -m tests.dicom.fuzz_structure --seed $${SEED:-1}

.PHONY: soak
soak: $(READY) ## Run the reliability tests for an hour rather than seconds
	@$(BIN)/pytest --long -s tests/reliability $(PYTEST_ARGS)

.PHONY: audit
audit: ## Look up known vulnerabilities of every package in the three lock files
	@[ -x .work/audit/bin/pip-audit ] || { python3 -m venv .work/audit \
		&& .work/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'; }
	@status=0; for lock in requirements requirements-backfill requirements-dev; do \
		echo "$$lock.txt"; \
		.work/audit/bin/pip-audit --strict --require-hashes --disable-pip -r $$lock.txt || status=1; \
	done; exit $$status

.PHONY: format
format: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# requirements.txt is what Google installs with the function: the dependencies in pyproject.toml,
# resolved and hashed for every supported Python. requirements-dev.txt adds the local stack and the
# development tools. requirements-backfill.txt is resolved separately, and from 3.13 on: for 3.12,
# a dependency of Apache Beam (google-apitools) has no wheel.
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --generate-hashes \
	--no-config --universal pyproject.toml
LOCK := $(COMPILE) --python-version 3.12
LOCK_DEV := $(LOCK) --extra local --extra report --extra tables --group dev --constraint requirements.txt
LOCK_BACKFILL := $(COMPILE) --python-version 3.13 --extra backfill --group test

# UPGRADE= keeps the locked versions that still fit, for a change of pyproject.toml.
UPGRADE := --upgrade

.PHONY: lock
lock: $(READY) ## Resolve the requirements again, to the latest versions
	@$(LOCK) $(UPGRADE) --output-file requirements.txt
	@$(LOCK_DEV) $(UPGRADE) --output-file requirements-dev.txt
	@$(LOCK_BACKFILL) $(UPGRADE) --output-file requirements-backfill.txt
	@$(BIN)/python scripts/worker_requirements.py

# The providers of tf/, by version and hash, for every system that it may be applied from.
.PHONY: lock-terraform
lock-terraform: ## Resolve the Terraform providers again: tf/.terraform.lock.hcl
	@cd tf && terraform providers lock \
		-platform=linux_amd64 -platform=linux_arm64 \
		-platform=darwin_amd64 -platform=darwin_arm64 -platform=windows_amd64

.PHONY: check-lock
check-lock: $(READY)
	@mkdir -p .work
	@cp requirements.txt requirements-dev.txt requirements-backfill.txt .work/
	@$(LOCK) --output-file .work/requirements.txt
	@$(LOCK_DEV) --output-file .work/requirements-dev.txt
	@$(LOCK_BACKFILL) --output-file .work/requirements-backfill.txt
	@$(BIN)/python scripts/worker_requirements.py --check
	@( for lock in requirements requirements-dev requirements-backfill; do \
		diff -u $$lock.txt .work/$$lock.txt || exit 1; done ) \
		|| { echo 'the requirements files do not match pyproject.toml: run make lock' >&2; exit 1; }

# The policy scanner has an environment of its own, because its dependencies conflict with ours.
SCANNER := .work/checkov-3.3.30

.PHONY: scan
scan: $(READY) $(SCANNER) ## Scan tf/ for violations of security policies
	@$(SCANNER)/bin/checkov --directory tf --framework terraform --compact --quiet --skip-download

$(SCANNER):
	@$(BIN)/python -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check checkov==$(lastword $(subst -, ,$@)) || { rm -rf $@; exit 1; }

.PHONY: picture
picture: ## Render docs/architecture.svg with Graphviz
	@command -v dot >/dev/null || { echo 'dot is not installed: install Graphviz' >&2; exit 1; }
	@dot -Tsvg docs/architecture.dot -o docs/architecture.svg

.PHONY: pictures
pictures: $(READY) ## Make the pictures in README from a real run, with Chromium
	@command -v chromium chromedriver >/dev/null || { echo 'chromium or chromedriver is not installed: install chromium-driver' >&2; exit 1; }
	@$(BIN)/python -m scripts.pictures

.PHONY: dist
dist: $(READY) ## Build the package and the function's archive in dist/, with checksums
	@rm -rf dist
	@$(BIN)/python scripts/build_dist.py dist

.PHONY: hooks
hooks: $(READY) ## Run the checks before each commit, with pre-commit
	@$(BIN)/pre-commit install

.PHONY: clean
clean: ## Remove everything that the other targets wrote
	@rm -rf $(VENV) $(BEAM_VENV) .work dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Create an environment with the packages of a lock file, and this package, editable. A lock file is
# complete, hence --no-deps; older versions of pip also fail to find the hashes of extras. Compiling
# all modules would take half the time, and a run imports few of them.
define set_up
	@set -e; \
	python=$$(PYTHON='$(PYTHON)' scripts/find_python.sh $(3)); \
	echo "setting up $(1) with $$("$$python" --version) at $$python (once, about half a minute) ..."; \
	rm -rf $(1); \
	"$$python" -m venv $(1); \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes --only-binary :all: -r $(2); \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $@
endef

$(READY): | requirements-dev.txt
	$(call set_up,$(VENV),requirements-dev.txt,$(VERSIONS))

$(BEAM_READY): | requirements-backfill.txt
	$(call set_up,$(BEAM_VENV),requirements-backfill.txt,$(BEAM_VERSIONS))
