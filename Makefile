# Everything starts here: `make demo` and `make test` need only git, make, Python >= 3.11 and pip.
# `uv` is brought along in .tools, so nothing is installed outside this folder.

PYTHON ?= python3
UV := .tools/bin/uv
# What is really run, where `python3` is a shim that chooses: uv tells an environment by that.
ifndef UV_PYTHON
UV_PYTHON := $(or $(shell $(PYTHON) -c 'import sys; print(sys.executable)' 2>/dev/null),$(PYTHON))
endif
export UV_PYTHON
export UV_PYTHON_DOWNLOADS ?= never
RUN := $(UV) run --no-sync

.DEFAULT_GOAL := help
# The folder docs/ exists.
.PHONY: docs help install demo test test-lowest bench bench-quick history lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 22

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modern-di-replicas needs Python >= 3.11; choose one: make PYTHON=python3.12 ...")'
	@echo "Installing uv into .tools ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools uv

install: $(UV)  ## the environment, in .venv
	@$(UV) sync --quiet --all-extras

demo: install  ## a real application over a real primary and two replicas
	@$(RUN) python -m modern_di_replicas demo

test: install  ## the whole suite, with the coverage gate
	@$(RUN) pytest -n 2 --cov --cov-report=term

test-lowest: $(UV)  ## the suite on the lowest allowed versions of every dependency
	@$(UV) venv --quiet --clear .venv-lowest
	@$(UV) pip install --quiet --python .venv-lowest --resolution lowest-direct --group dev -e '.[fastapi,litestar,testing,demo]'
	@.venv-lowest/bin/python -m pytest -n 2

bench bench-quick: $(UV)
	@$(UV) venv --quiet --allow-existing .venv-bench
	@$(UV) pip install --quiet --python .venv-bench --upgrade --group bench -e '.[fastapi,litestar,testing]'
	@$(UV) venv --quiet --allow-existing .venv-bench-sqlalchemy20
	@$(UV) pip install --quiet --python .venv-bench-sqlalchemy20 --upgrade --group bench -e '.[fastapi,litestar,testing]' 'sqlalchemy<2.1'
	@.venv-bench/bin/python -m benchmarks $(if $(filter bench-quick,$@),--quick)
bench:  ## side by side with what a user would take instead, into benchmarks/RESULTS.md; under ten minutes
bench-quick:  ## the same in under a minute, shown only

docs: $(UV)  ## the documentation site, into site/; broken links are errors
	@$(UV) venv --quiet --allow-existing .venv-docs
	@$(UV) pip install --quiet --python .venv-docs --group docs
	@.venv-docs/bin/mkdocs build --strict

history: install  ## 100,000 operations while everything fails: does anybody see what they should not?
	@$(RUN) python -m tests.history

lint: install  ## style, formatting, types and import contracts, changing nothing
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports

format: install  ## formatting and what ruff can fix
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

clean:  ## remove everything the other commands made
	@rm -rf .tools .venv .venv-lowest .venv-bench* .venv-docs site uv.lock dist .coverage* .mypy_cache .ruff_cache .import_linter_cache .hypothesis
