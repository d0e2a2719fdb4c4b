# `make demo` and `make test` build .venv first, unless it is current.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO ?= demo
# The first Python from 3.11 to 3.13 on the path. `make PYTHON3=/path/to/python3.12 …` selects another.
PYTHON3 ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
STAMP := $(VENV)/installed

.PHONY: help setup demo test test-slow test-extractors test-pages test-large test-interleavings test-all test-distributed \
	bench docs lint lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Build .venv from the lock file, unless it is current

$(STAMP): requirements.lock setup.py pyproject.toml
	@if [ -z "$(PYTHON3)" ]; then echo "capt needs Python 3.11, 3.12 or 3.13, and none is on the path. Install one, or set PYTHON3."; exit 1; fi
	@echo "using $$($(PYTHON3) --version) at $$(command -v $(PYTHON3))"
	$(PYTHON3) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup  ## Run the whole workflow on synthetic data, into ./demo
	$(VENV)/bin/capt demo --output $(DEMO)

docs: setup  ## Build the documentation site into docs/_build; a warning is an error
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs docs/_build

lint: setup  ## Run ruff, import-linter and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

test: lint  ## Run the linters and the fast tests, two files at a time
	$(PYTHON) -m pytest -n 2 --dist loadfile --durations=20

# Select tests: `make test-slow SLOW=tests/pipelines`.
SLOW ?= tests
test-slow: setup  ## Run the slow tests: kills, a million references, whole trainings, JAX
	$(PYTHON) -m pytest -m slow -n 2 --dist loadfile --durations=20 --ignore=tests/docs \
		--ignore=tests/features/extractors/test_frozen_graph.py $(SLOW)

test-extractors: setup  ## Run the tests of large extractors, one after another
	$(PYTHON) -m pytest -m "slow and not large" tests/features/extractors/test_frozen_graph.py

test-pages: setup  ## Run the commands and programs of the documentation
	$(PYTHON) -m pytest -m slow -n 2 --durations=30 tests/docs

test-large: setup  ## Run the tests that need 17 GB of memory: VGG16 up to fc2
	$(PYTHON) -m pytest -m large

# Number of orders: `make test-interleavings EXAMPLES=20000`.
test-interleavings: EXAMPLES ?= 5000
test-interleavings: setup  ## Run jobs on one store in many random orders, half an hour
	EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -m slow tests/reliability/test_interleavings.py

test-all: test test-slow test-extractors test-pages test-large  ## Run every test that needs no other runner

# Select runners: `make test-distributed ENGINES="prism or flink"`.
ENGINES ?= processes or prism or flink or spark or lost_workers
test-distributed: setup  ## Run the jobs on Prism, Flink and Spark; skip runners without Go, Java or Maven
	$(PYTHON) -m pytest -m distributed -k "$(ENGINES)" tests/distributed

BENCHMARKS := extraction "extraction --precision float32" reading storage training "training --words 16" captioning \
	tokenizing unchanged_dataset incremental scaling precisions "captcha speed"
bench: setup  ## Run the benchmarks of docs/benchmarks/speed.md, an hour on two quiet cores
	@set -e; for one in $(BENCHMARKS); do set -- $$one; name=$$1; shift; echo "== $$name $$*"; \
		$(PYTHON) benchmarks/$$name.py $$*; done

# Beside JAX, capt extracts features without TensorFlow. An override without a matching Python removes a package.
WITHOUT_TENSORFLOW := tensorflow tensorflow-text tensorflow-transform
UV_COMPILE := $(VENV)-lock/bin/uv pip compile setup.py --universal --generate-hashes --python-version 3.11 --no-header --quiet
lock:  ## Resolve the dependencies of setup.py into requirements.lock and requirements-accelerator.lock
	$(PYTHON3) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet uv
	$(UV_COMPILE) --extra docs --extra test --output-file requirements.lock
	printf "%s; python_version < '3'\n" $(WITHOUT_TENSORFLOW) > $(VENV)-lock/overrides.txt
	$(UV_COMPILE) --extra gcs --extra heif --extra jax --extra s3 --override $(VENV)-lock/overrides.txt \
		--constraint requirements.lock --output-file requirements-accelerator.lock
	rm -rf $(VENV)-lock

clean:  ## Remove everything that was built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/generated
