# make book     the book, from a fresh machine (Python 3.11 or newer is all it needs)
# make test     the tests, likewise
.DEFAULT_GOAL := help
.PHONY: help env book pdf test lint check reproduce notebooks faults fuzz mutate audit bench lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named by what the environment is made from: contents decide, not the clock.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
SITE := _build/html/index.html

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(STAMP)  ## the environment in .venv, from requirements.lock

# Two builds of one checkout take turns: what changes files is done again by make, with the lock in hand.
LOCK := $(PYTHON) -m book.tools.locked _build/.lock $(MAKE) --no-print-directory HOLDING_LOCK=1

ifndef HOLDING_LOCK
$(STAMP):
	+@$(LOCK) $@

notebooks book:
	+@$(LOCK) $@
else
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Say which to use: make PYTHON=python3.12 ...")'
	@rm -f $(VENV)/.installed*
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

notebooks: $(STAMP)  ## execute the chapters whose code, library or data changed
	$(BIN)/python -m book.tools.refresh refresh

book: notebooks  ## build the book; warnings are errors
	@$(BIN)/python -m book.tools.refresh prepare
	@rm -rf _build/html _build/.doctrees  # a partial build keeps old assets, and stays silent on old warnings
	$(BIN)/jupyter-book build . --path-output . --warningiserror --nitpick --keep-going --quiet
	@test -s $(SITE)
	@echo "The book is in $(CURDIR)/$(SITE)"
endif

pdf: $(STAMP)  ## print the built site to _build/ntps.pdf; needs Chromium
	$(BIN)/python -m book.tools.browser _build/ntps.pdf

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest

lint: $(STAMP)  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: $(STAMP)  ## are the committed notebooks up to date?
	$(BIN)/python -m book.tools.refresh check

reproduce: $(STAMP)  ## execute every chapter and compare its numbers with the committed ones
	$(BIN)/python -m book.tools.refresh reproduce

faults: $(STAMP)  ## kill long work 200 times at random moments, and see what is left
	$(BIN)/python -m tests.faults --times 200 --out runs/faults.json

fuzz: $(STAMP)  ## every statement of the theory on 10,000 random problems (half an hour)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q -m hypothesis tests/test_linear.py tests/test_moments.py tests/test_score.py --junitxml runs/fuzz.xml

mutate: $(STAMP)  ## change the core in small ways: does a test notice? (an hour)
	test -x _build/mutate/bin/python || $(PYTHON) -m venv _build/mutate
	_build/mutate/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock mutmut
	HYPOTHESIS_PROFILE=mutation OMP_NUM_THREADS=1 _build/mutate/bin/python -m mutmut run

audit:  ## known vulnerabilities of the pinned packages, from PyPI; fails on one that it cannot look up
	test -x _build/audit/bin/pip-audit || ($(PYTHON) -m venv _build/audit && _build/audit/bin/python -m pip install --quiet pip-audit)
	_build/audit/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

bench: $(STAMP)  ## what extraction and scores cost, as ratios; figures in runs/bench.json
	$(BIN)/python -m book.tools.bench

lock:  ## make requirements.lock anew from pyproject.toml
	rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	_build/lock/bin/python -m pip install --quiet 'torch==2.13.0' -e '.[book,grid,dev]'
	{ head -n 1 requirements.lock; _build/lock/bin/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\).*/\1/'; } > _build/lock.txt
	mv _build/lock.txt requirements.lock

clean:  ## remove what was built (not the environment)
	rm -rf _build runs
