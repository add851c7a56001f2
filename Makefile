# `make demo` and `make test` need only git, make, Python >= 3.11 and pip.
# `uv` is installed in .tools, so nothing is installed outside this folder.

PYTHON ?= python3
UV := .tools/bin/uv
# The real interpreter, in case `python3` is a shim: uv identifies environments by it.
ifndef UV_PYTHON
UV_PYTHON := $(or $(shell $(PYTHON) -c 'import sys; print(sys.executable)' 2>/dev/null),$(PYTHON))
endif
export UV_PYTHON
export UV_PYTHON_DOWNLOADS ?= never
# Use the system's certificates, as pip does: behind a company's proxy, uv's own do not suffice.
export UV_SYSTEM_CERTS ?= 1
# Without compiled files, each process of the suite compiles its imports, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE
RUN := $(UV) run --no-sync
# Three workers on two cores, because tests of faults wait. Each starts with a separate part of the files, so that
# fixtures of a file are rarely created twice.
export WORKERS ?= -n 3 --dist worksteal
# All extras in pyproject.toml.
EXTRAS = $(shell $(UV_PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep=",")')

.DEFAULT_GOAL := help
# `docs` is also the name of a folder.
.PHONY: docs faults-in-threads test-docker help install demo test test-quick test-all test-lowest history soak lint format clean
.PHONY: bench bench-flask bench-quick bench-render release-check

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

test: install  ## the suite but for the slow tests, with the coverage gate; under three minutes
	@$(RUN) python -m pytest $(WORKERS) -p tests.coverage_gate -m 'not slow'

test-quick: install  ## the suite without faults and histories; under a minute
	@$(RUN) pytest $(WORKERS) -m 'not faults and not history and not slow'

test-all: $(UV)  ## the suite on Python 3.11, 3.12, 3.13 and the lowest versions; VERSIONS="3.13 lowest" for some
	@UV=$(UV) EXTRAS=$(EXTRAS) .ci/test-all $(VERSIONS)

test-lowest: $(UV)  ## the suite on the lowest versions of every dependency
	@UV=$(UV) EXTRAS=$(EXTRAS) .ci/test-all lowest

release-check: $(UV)  ## build, check the metadata, and follow README and tutorials with the installed wheel
	@rm -rf dist .venv-release
	@$(UV) build --quiet --no-sources
	@$(UV) run --quiet --isolated --no-project --with twine twine check --strict dist/*
	@$(UV) venv --quiet .venv-release
	@$(UV) pip install --quiet --python .venv-release "$$(ls dist/*.whl)[$(EXTRAS)]" trove-classifiers
	@.venv-release/bin/python -I .ci/release_check.py
	@$(UV_PYTHON) -I .ci/tutorial_check.py docs/tutorial.md dist/*.whl
	@$(UV_PYTHON) -I .ci/tutorial_check.py docs/tutorial-flask.md dist/*.whl

bench bench-quick bench-render: $(UV)
	@$(UV) venv --quiet --allow-existing .venv-bench
	@$(UV) pip install --quiet --python .venv-bench --upgrade --group bench -e '.[fastapi,testing]'
	@$(UV) venv --quiet --allow-existing .venv-bench-sqlalchemy20
	@$(UV) pip install --quiet --python .venv-bench-sqlalchemy20 --upgrade --group bench -e '.[fastapi,testing]' 'sqlalchemy<2.1'
	@.venv-bench/bin/python -m benchmarks $(patsubst bench-%,--%,$(filter bench-%,$@))
bench:  ## compare with the alternatives and write the results; under ten minutes, on a quiet machine only
bench-quick:  ## the same in under a minute; shows the results and writes nothing
bench-render:  ## measure nothing: write tables, pictures and README figures from benchmarks/results.json

bench-flask: $(UV)  ## compare Flask applications and synchronous sessions with the alternatives; shows the results
	@$(UV) venv --quiet --allow-existing .venv-bench-sqlalchemy20
	@$(UV) pip install --quiet --python .venv-bench-sqlalchemy20 --upgrade --group bench -e '.[flask,testing]' 'sqlalchemy<2.1'
	@.venv-bench-sqlalchemy20/bin/python -m benchmarks.synchronous

faults-in-threads: install  ## thirty threads of a synchronous application, while servers freeze, crash, lag and move
	@$(RUN) python -m tests.sync.load

test-docker: install  ## the tests of clusters in containers; DOCKER_IMAGE names another image than postgres:18
	@TESTCONTAINERS_RYUK_DISABLED=true $(RUN) pytest -q -rs tests/testing/test_docker.py

docs: $(UV)  ## the documentation site, into site/; broken links are errors
	@$(UV) venv --quiet --allow-existing .venv-docs
	@$(UV) pip install --quiet --python .venv-docs --group docs
	@.venv-docs/bin/mkdocs build --strict

history: install  ## 100,000 operations on FastAPI and 50,000 on Flask while everything fails
	@$(RUN) python -m tests.history

soak: install  ## ten minutes with faults, beside plain SQLAlchemy: memory, tasks, descriptors and objects
	@$(RUN) python -m tests.soak

lint: install  ## style, formatting, types and import contracts, changing nothing
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports

format: install  ## formatting and what ruff can fix
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

clean:  ## remove everything the other commands made
	@rm -rf .tools .venv .venv-* site uv.lock dist .coverage* .mypy_cache .ruff_cache .import_linter_cache .hypothesis
