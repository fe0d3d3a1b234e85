# make demo   set up an environment and describe the packaged cells
# make test   set up an environment with everything the tests need, and run them
# make test-all   the slow ones, too: a rehearsal of the GPU benchmarks, a prompt of 8,000 tokens, a short training
# make bench  set up the same environment and run every benchmark that needs no GPU, with results in build/benchmarks;
#             ARGS="--only demo" for some, ARGS=--again to measure anew what is there
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# without compiling every file of every package: Python does so for those that are used
PIP = $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt

.PHONY: demo test test-all bench check clean

demo: $(VENV)/.runtime
	$(BIN)/cellscribe demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test-all: $(VENV)/.dev
	$(PIP) --editable '.[dev,scores]'
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/suite.py $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/typecheck && mkdir -p build/typecheck/cellscribe
	@ln -s $(CURDIR)/cellscribe/* $(CURDIR)/engine $(CURDIR)/export $(CURDIR)/kernels build/typecheck/cellscribe/
	MYPYPATH=build/typecheck $(BIN)/mypy -p cellscribe

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "cellscribe needs Python 3.11 to 3.13; run make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing cellscribe into $(VENV) (about a minute) ..."
	@test -f $(VENV)/.dev || $(PIP) .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing cellscribe with its development tools into $(VENV) (a few minutes) ..."
	@$(PIP) torch
	@$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist
