# make run    the whole system on this machine: open the page it names
# make test   the tests
# make demo   plays the story through real webhooks, prints it, stops
# make bench  how much CPU it takes to read what arrives, against its caps and against others
# make check  what a change must pass: tests, style, types, imports, packaging
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup run test demo bench check lint types package repeats-model lock clean

setup: $(READY)

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "AskOnce needs Python 3.11 to 3.13; this is %s: set PYTHON=python3.13" % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: setup
	$(BIN)/askonce dev

test: setup
	$(BIN)/pytest

demo: setup
	$(BIN)/askonce demo --own-world

bench: setup
	$(BIN)/python -m tests.bench

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

package: setup
	$(BIN)/python -m infra.package dev build/out
	$(BIN)/python -m infra.runtime_check build/out

check: lint types test package

# Rebuilds chalicelib/rarity.json; its source is large, so it gets an environment of its own.
repeats-model:
	$(PYTHON) -m venv build/model
	build/model/bin/pip install --quiet wordfreq==3.1.1 jieba==0.42.1
	build/model/bin/python infra/repeats_model.py

# Resolved together, without the registry's address: names, versions and hashes only.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
           --no-emit-index-url --no-annotate --no-header
lock: setup
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) -c requirements.txt --extra dev pyproject.toml -o requirements-dev.txt

clean:
	rm -rf build $(VENV) .askonce
