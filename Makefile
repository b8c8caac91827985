# Every target needs only python3 (3.11 or newer, with venv and pip) and make.
PYTHON ?= python3
ARGS ?=
STORAGE ?= memory
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
# uv is quick, but does not read pip's configuration of mirrors and certificates: pip stands behind it.
UV := $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --upgrade

.DEFAULT_GOAL := help
.PHONY: help install demo run test fast acceptance coverage check format bench chaos lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

install: $(STAMP) ## Make .venv with everything needed

$(STAMP): pyproject.toml requirements-dev.txt .ci/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Ops-Core needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --requirement .ci/uv.txt
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.txt \
		|| $(PIP) install --quiet --require-hashes --requirement requirements-dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: install ## Show a whole workflow, live (STORAGE=sqlite or postgres; ARGS=--once ends by itself)
	@$(BIN)/opscore demo --storage '$(STORAGE)' $(ARGS)

run: install ## Start the service with the settings of .env and the environment
	@$(BIN)/opscore serve $(ARGS)

test: install ## Run every test (ARGS='-k name' for some)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

fast: install ## Run what needs no real process, in memory
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --storages memory --ignore tests/acceptance $(ARGS)

acceptance: install ## Run the tests that start real processes
	$(BIN)/python -m pytest tests/acceptance $(ARGS)

coverage: install ## Measure branch coverage; the heart needs 95 %
	$(BIN)/python -m pytest --cov --cov-report= $(ARGS)
	$(BIN)/coverage report
	$(BIN)/coverage report --fail-under=95 \
		--include='opscore/workflow/*,opscore/lifecycle*,opscore/storage/*'

check: install ## Lint, format check, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Measure speed, in memory and on the durable storages
	$(BIN)/python -m tests.load.bench $(ARGS)

chaos: install ## Kill replicas and databases, and check that nothing is lost
	$(BIN)/python -m tests.load.chaos $(ARGS)

lock: install ## Choose the newest versions of all requirements anew
	$(COMPILE) pyproject.toml --extra postgres --output-file requirements.txt
	$(COMPILE) pyproject.toml --extra postgres --extra localpg --extra otel --group dev \
		--constraint requirements.txt --output-file requirements-dev.txt
	echo uv | $(COMPILE) --output-file .ci/uv.txt -

clean: ## Remove everything that can be made again
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache
	find opscore tests -name __pycache__ -type d -prune -exec rm -rf {} +
