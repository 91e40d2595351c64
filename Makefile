# La Volta: `make demo` shows it, `make test` checks it. Everything lives in .venv and build/.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHARED ?= ../shared
NATIVE_SOURCES := CMakeLists.txt $(shell find native -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name 'CMakeLists.txt' 2>/dev/null)

.PHONY: help setup demo test lint bench cross clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE_SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[compress,bench,serve,demo,dev]'
	@touch $@

setup: $(VENV)/.installed  ## make .venv with all that demo, tests, benchmarks and experiments need

demo: setup  ## compress a real sentence encoder, run it at every level, dance along a battery
	$(BIN)/lavolta demo --out runs/demo

lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## the whole suite: lint, types, room contracts, native and Python tests
	$(BIN)/python -m pytest -n 2 --shared-data=$(SHARED)

bench: setup  ## run every benchmark on an idle machine, store the results, make the tables of benchmarks/README.md
	$(BIN)/python benchmarks/all.py

cross: setup  ## build the engine for 64-bit and 32-bit Arm and test it there (needs Debian's cross compilers and qemu-user)
	$(BIN)/python -m pytest tests/native/test_native_cross.py

clean:  ## remove builds and runs, keep .venv
	rm -rf build runs
