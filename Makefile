# Every target does its own set-up. A person needs two: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
# Pytest's marker expression of `make test`; `make full` empties it.
MARKS ?= not slow

bin := $(VENV)/bin
stamp := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup check test full demo fuzz bench clean

help:  ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(stamp)  ## make the environment, in .venv

# Made again only when a dependency changed.
$(stamp): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

check: $(stamp)  ## style, types, the law of the layers, unit tests: under a minute
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/mypy scripts
	$(bin)/mypy benchmarks
	$(bin)/lint-imports
	$(bin)/pytest -q -n 2 --dist worksteal tests/unit -m '$(MARKS)'

# A missing program skips its tests loudly, but not in CI, and not where everything is there.
test: check  ## check, and the rest: property, fuzz corpora, contract, integration, and programs that nobody here wrote
	@real=--require-real; \
	$(bin)/python scripts/debian_packages.py || test -n "$$CI" || real=; \
	$(bin)/python -c 'import smartcard.scard' 2>/dev/null \
	  || $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,pcsc]' \
	  || test -n "$$CI" || real=; \
	$(bin)/pytest -q -n 2 --dist worksteal tests/property tests/fuzz tests/contract tests/integration -m '$(MARKS)' $$real && \
	$(bin)/pytest tests/real -m '$(MARKS)' $$real

full: PYTHON_OLDEST ?= $(shell $(PYTHON) scripts/find_python.py oldest)
full: PYTHON_NEWEST ?= $(shell $(PYTHON) scripts/find_python.py newest)
full:  ## test, and what is slow, on the oldest and the newest Python found
	$(MAKE) test MARKS= VENV=.venv-oldest PYTHON=$(PYTHON_OLDEST)
	$(MAKE) test MARKS= VENV=.venv-newest PYTHON=$(PYTHON_NEWEST)

demo: $(stamp)  ## the whole story over TCP, with simulated hardware
	@$(bin)/demail-hw demo

# Seconds for each of the decoders.
FUZZ_SECONDS ?= 20
fuzz_stamp := $(VENV)-fuzz/.installed

fuzz: $(fuzz_stamp)  ## fuzz every decoder, guided by coverage: 20 s each
	@$(VENV)-fuzz/bin/python tests/fuzz/run.py $(FUZZ_SECONDS)

$(fuzz_stamp): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . 'atheris>=3'
	@touch $@

bench: $(stamp)  ## what a signature costs, at every depth
	@$(bin)/python scripts/debian_packages.py || true
	@$(bin)/python -m benchmarks

clean:  ## remove environments, caches and build results
	rm -rf .venv .venv-* .fuzz build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src drivers simulators tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +
