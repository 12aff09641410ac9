# make run    the whole system on this machine: open the page it names
# make test   the tests
# make demo   plays the story through real webhooks, prints it, stops
# make bench  how much CPU it takes to read what arrives, to start and to acknowledge, beside others;
#             writes docs/performance.md
# make package   the zip and the templates that go on AWS
# make rehearse  deploys them on this machine, and plays the story there
# make check  what a change must pass: tests, style, types, imports, packaging
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# make bench-repeats   how well repeats are recognised, beside what one would use instead
.PHONY: setup run test demo bench bench-repeats check lint types package rehearse repeats-model lock clean connector helpdesk

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

bench: package build/rehearsal/.ready
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench_page
	$(BIN)/python -m tests.bench_cost --write

# One connector's tests, or one helpdesk's: make connector NAME=sms_twilio
CONNECTOR_TESTS := tests/test_conformance.py tests/test_conformance_out.py tests/test_refusals.py \
                   tests/test_matrix.py tests/test_every_provider.py
connector: setup
	$(BIN)/pytest $(CONNECTOR_TESTS) -k "$(NAME) or $(subst _,-,$(NAME))"

HELPDESK_TESTS := tests/test_helpdesk_conformance.py tests/test_desk_contract.py
helpdesk: setup
	$(BIN)/pytest $(HELPDESK_TESTS) $(wildcard tests/test_helpdesk_$(NAME).py) -k "$(NAME)"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

# What is packaged, deployed on this machine: an engine that makes the stacks and runs the zip.
rehearse: setup package build/rehearsal/.ready
	$(BIN)/python -m tests.rehearse

build/rehearsal/.ready: tests/rehearsal.txt
	$(PYTHON) -m venv build/rehearsal
	build/rehearsal/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/rehearsal.txt
	touch $@

# Helpdesks that are Python, for the tests that start and stop them.
build/helpdesks/.ready: tests/helpdesks.txt
	$(PYTHON) -m venv build/helpdesks
	build/helpdesks/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/helpdesks.txt
	touch $@

package: setup
	$(BIN)/askonce package
	$(BIN)/python -m infra.runtime_check build/out dev

check: lint types test rehearse

# The shipped scorer beside others, which need an environment of their own.
bench-repeats:
	$(PYTHON) -m venv build/bench
	build/bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	build/bench/bin/pip install --quiet --disable-pip-version-check -r tests/bench_repeats.txt
	build/bench/bin/python -m tests.bench_repeats

# Rebuilds chalicelib/lexicon.bin and rarity.json from what they are made of, in an environment of
# its own. Needs a C compiler and Python 3.12; about half an hour on two cores.
MODEL_PYTHON ?= python3.12
repeats-model:
	$(MODEL_PYTHON) -m venv build/model
	build/model/bin/pip install --quiet -r infra/repeats_model/requirements.txt
	build/model/bin/python -m infra.repeats_model

# Resolved together, without the registry's address: names, versions and hashes only.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
           --no-emit-index-url --no-annotate --no-header
lock: setup
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) -c requirements.txt --extra dev pyproject.toml -o requirements-dev.txt
	$(COMPILE) tests/rehearsal.in -o tests/rehearsal.txt
	$(COMPILE) tests/helpdesks.in -o tests/helpdesks.txt

clean:
	rm -rf build $(VENV) .askonce
