# Two commands do everything: `make demo` and `make test`. Both build .venv first, once.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO ?= demo
# The first Python between 3.11 and 3.13 on the path; `make PYTHON3=/path/to/python3.12 …` names another.
PYTHON3 ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
STAMP := $(VENV)/installed

.PHONY: help setup demo test test-slow test-large test-interleavings test-all test-distributed bench docs lint lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Build .venv from the lock; nothing to do while it is current

$(STAMP): requirements.lock setup.py pyproject.toml
	@if [ -z "$(PYTHON3)" ]; then echo "capt needs Python 3.11, 3.12 or 3.13; none is on the path"; exit 1; fi
	@echo "using $$($(PYTHON3) --version) at $$(command -v $(PYTHON3))"
	$(PYTHON3) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup  ## The whole chain on data it makes, into ./demo
	$(VENV)/bin/capt demo --output $(DEMO)

docs: setup  ## Build the documentation site into docs/_build; a warning is an error
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs docs/_build

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

test: lint  ## Lint and the fast tests, two files at a time
	$(PYTHON) -m pytest -n 2 --dist loadfile --durations=20

test-slow: setup  ## The slow tests: fifty kills, a million references, large networks, JAX
	# Large networks in a process of their own, which needs 14 GB of memory, and 3 GB for another at times.
	$(PYTHON) -m pytest -m slow tests/features/extractors/test_frozen_graph.py
	$(PYTHON) -m pytest -m slow -n 2 --dist loadfile --durations=20 --ignore=tests/features/extractors/test_frozen_graph.py

test-large: setup  ## What takes 17 GB of memory: VGG16 up to fc2
	$(PYTHON) -m pytest -m large

# How many orders: `make test-interleavings EXAMPLES=20000`.
test-interleavings: EXAMPLES ?= 5000
test-interleavings: setup  ## Jobs on one store in many random orders, for a directory and a bucket: half an hour
	EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -m slow tests/reliability/test_interleavings.py

test-all: test test-slow test-large  ## Every test that needs no engine

# Some of them: `make test-distributed ENGINES="prism or flink"`.
ENGINES ?= processes or prism or flink or spark or lost_workers
test-distributed: setup  ## The jobs on Prism, Flink and Spark, as far as Go, Java and Maven are here; a table at the end
	$(PYTHON) -m pytest -m distributed -k "$(ENGINES)" tests/distributed

BENCHMARKS := extraction "extraction --precision float32" reading storage training "training --words 16" captioning \
	tokenizing nothing_new delta growth precisions "captcha speed"
bench: setup  ## The benchmarks of docs/benchmarks/speed.md, one after the other: an hour on two quiet cores
	@set -e; for one in $(BENCHMARKS); do set -- $$one; name=$$1; shift; echo "== $$name $$*"; \
		$(PYTHON) benchmarks/$$name.py $$*; done

lock:  ## Resolve the dependencies of setup.py anew into requirements.lock
	$(PYTHON3) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile setup.py --extra docs --extra test --universal --generate-hashes --python-version 3.11 \
		--no-header --quiet --output-file requirements.lock
	rm -rf $(VENV)-lock

clean:  ## Remove what was built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/generated
