# make demo: set everything up, then run the main job on a small real model.
# make test: set everything up, then run the tests; make quick the short ones alone, make test-slow those that take minutes, make test-page those in a browser, make test-versions those of
# docs/compatibility.md.
# make bench: measure each row of the table of figures; make bench ROW=top2 one of them. make performance writes the page.
# make gpu: the tests and the rows that need a CUDA device, into benchmarks/results/gpu.json.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: setup demo quick test test-page test-slow test-versions lint format docs pictures architectures bench gpu performance wheel clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	@touch $@

demo: setup
	$(BIN)/frostline demo

test: setup
	$(BIN)/python -m pytest

quick: setup
	$(BIN)/python -m pytest -m "not slow and not long and not gpu and not page"

# In Debian's chromium; skipped where there is none.
test-page: setup
	$(BIN)/python -m pytest -n0 -m page tests/page

test-slow: setup
	$(BIN)/python -m pytest -m slow

# The tests and the demo on other versions of the libraries; SET=oldest one of them, QUICK=1 a look at each part.
test-versions: setup
	$(BIN)/python -m tests.versions $(if $(QUICK),--quick) $(SET)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of README.md; needs chromium.
pictures: setup
	$(BIN)/python -m tests.docs.pictures

architectures: setup
	mkdir -p build
	$(BIN)/python -m tests.zoo.page > build/architectures.md
	mv build/architectures.md docs/architectures.md

# ROWS=64 or REPEATS=1 make a quick trial, of which nothing is kept.
bench: setup
	$(BIN)/python -m benchmarks $(ROW) $(if $(REPEATS),--repeats $(REPEATS)) $(if $(ROWS),--rows $(ROWS))

# Needs a CUDA device, and takes 8 minutes at most; GPU_PYTHON=python3 names one in which Frostline and its libraries are installed.
gpu: $(if $(GPU_PYTHON),,setup)
	PYTHONPATH=src:. $(or $(GPU_PYTHON),$(BIN)/python) -m benchmarks.on_gpu

performance: setup
	mkdir -p build
	$(BIN)/python -m benchmarks.page > build/performance.md
	mv build/performance.md docs/performance.md

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
