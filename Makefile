# Everything runs in .venv, made on the first use and again when the requirements change.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo       fit the hybrid predator-prey model (hybridsam-bridge train)"
	@echo "make test       the test suite; make test-slow: the long checks"
	@echo "make lint       ruff and mypy; make bench: benchmarks against other tools"

demo: .venv/.ready
	$(BIN)/hybridsam-bridge train

test: .venv/.ready
	$(BIN)/python -m pytest

test-slow: .venv/.ready
	$(BIN)/python -m pytest -m slow --timeout 1800

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.bench
	$(BIN)/hybridsam-bridge bench --json bench.json

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.ready: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) ".[test]"
	@touch $@

.venv/.dev: .venv/.ready
	$(PIP) ".[test,dev]"
	@touch $@

.venv/.bench: .venv/.ready
	$(PIP) ".[test,bench]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
