# Guestkey: `make help` lists what can be done here.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
STATE ?= .state
PORT ?= 8200
VENV := .venv
BIN := $(VENV)/bin
# Servers for each worker of pytest; what shares a server of its own stays with one of them.
WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder

# Compiled code is kept: a stack is a dozen processes that import the same.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up down status passwords demo test test-fast test-faults mutants check format docs screenshots bench clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@echo '  Settings: PYTHON=$(PYTHON) STATE=$(STATE) PORT=$(PORT)'

up: $(VENV)/.embedded ## Start everything on this machine, or find it running; prints address and accounts
	@$(BIN)/python -m broker.embedded up --state '$(STATE)' --port '$(PORT)'

down: ## Stop everything; its state stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m broker.embedded down --state '$(STATE)'; else echo 'Nothing is running.'; fi

status: ## What runs, and where
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m broker.embedded status --state '$(STATE)'; else echo 'Nothing is running.'; fi

passwords: $(VENV)/.embedded ## New passwords and enrolment links for the example's people
	@$(BIN)/python -m broker.embedded passwords --state '$(STATE)'

demo: $(VENV)/.embedded ## Walk the whole story unattended on a throw-away stack
	@$(BIN)/python -m examples.demo

test: $(VENV)/.dev ## Run the tests, on real servers; prints what they cost beside the demo
	$(BIN)/python -m tests.cost $(WORKERS)

test-fast: $(VENV)/.dev ## What one runs while writing: pure parts, and one path through each package
	$(BIN)/pytest -q -m fast $(WORKERS)

test-faults: $(VENV)/.dev ## Kill, cut, fill and race everything, at every step; takes an hour
	$(BIN)/pytest tests/faults -m 'whole or not whole' $(WORKERS)
	$(BIN)/pytest tests --ignore=tests/faults -m whole $(WORKERS)

mutants: $(VENV)/.dev ## Change code on purpose and see that a test notices each change (docs/testing.md)
	$(BIN)/pytest -q -rfE -p tests.mutation.plugin --timeout 60

check: $(VENV)/.dev ## Lint, formatting, types, directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and put imports in order
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## Make the pages that are made from the code
	$(BIN)/python -m broker.web.client_nouns > guestkey/cli/nouns.new && mv guestkey/cli/nouns.new guestkey/cli/nouns.json
	$(BIN)/python -m guestkey.cli.reference > docs/commands.md
	$(BIN)/python -m broker.kinds.discovery

screenshots: $(VENV)/.dev ## Take the pictures of the documentation anew; look at them before they are kept
	GUESTKEY_APPROVE=1 $(BIN)/pytest -q tests/portal

bench: $(VENV)/.dev ## Measure, on real servers, and print ratios
	$(BIN)/python -m benchmarks

clean: down ## Stop everything and remove state, caches and the virtual environment
	rm -rf '$(STATE)' $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second run installs nothing. Whoever has the development tools has the rest too.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Guestkey needs Python 3.11 or newer. Try: make PYTHON=python3.12 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.embedded: pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(VENV)/.embedded $@
