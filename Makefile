# make book     build the book; on a fresh machine, Python 3.11 or newer is all that is needed
# make test     run all tests; likewise
# make quick    run the quick tests while you work on the code
.DEFAULT_GOAL := help
.PHONY: help env book pdf quick test versions light lint check dist reproduce notebooks faults fuzz mutate audit bench lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The name of this file contains a checksum: a change of contents, not of dates, makes the environment again.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
SITE := _build/html/index.html

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(STAMP)  ## create the environment in .venv from requirements.lock

# Two builds of one checkout must not run at the same time. The targets below that change files take a lock
# and call make again; the second call has HOLDING_LOCK set and does the work.
LOCK := $(PYTHON) -m book.tools.locked _build/.lock $(MAKE) --no-print-directory HOLDING_LOCK=1

ifndef HOLDING_LOCK
$(STAMP):
	+@$(LOCK) $@

notebooks book:
	+@$(LOCK) $@
else
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Choose another one: make PYTHON=python3.12 ...")'
	@rm -f $(VENV)/.installed*
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

notebooks: $(STAMP)  ## execute the chapters whose code, library or data changed
	$(BIN)/python -m book.tools.refresh refresh

book: notebooks  ## build the book; warnings are errors
	@$(BIN)/python -m book.tools.refresh prepare
	@rm -rf _build/html _build/.doctrees  # a partial build keeps old assets and does not repeat old warnings
	$(BIN)/jupyter-book build . --path-output . --warningiserror --nitpick --keep-going --quiet
	@test -s $(SITE)
	@echo "The book is in $(CURDIR)/$(SITE)"
endif

pdf: $(STAMP)  ## print the built site to _build/html/ntps.pdf, and its slides; needs Chromium
	$(BIN)/python -m book.tools.browser

# -n auto starts one process for each core; OPTIONS adds options of pytest, such as OPTIONS="-x --durations=20".
quick: $(STAMP)  ## run the tests that take less than a minute together
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest tests -n auto -m "not slow and not browser and not dask and not hub" $(OPTIONS)

# One process more than cores: some tests wait for a browser, a server or a process of their own.
test: $(STAMP)  ## run all tests, and the examples in docstrings
	$(BIN)/python -m pytest -n $$(($$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1)) --dist loadscope $(OPTIONS)

# WHICH=lowest takes the lower bounds of pyproject.toml, WHICH=latest the newest versions that it allows.
WHICH := lowest
lowest = $(shell grep -oE '(numpy|transformers)>=[0-9.]+' pyproject.toml | sed 's/>=/==/')
latest = numpy transformers
versions:  ## run the quick tests with other versions of numpy and transformers, in an environment of its own
	rm -rf _build/versions
	$(PYTHON) -m venv _build/versions
	_build/versions/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $($(WHICH)) -e '.[dev,book,grid]'
	HYPOTHESIS_PROFILE=quick _build/versions/bin/python -m pytest tests -n auto -m "not slow and not browser and not dask and not hub" \
	  --deselect tests/test_packaging.py::test_running_environment_matches_the_lock $(OPTIONS)

light:  ## install the wheel without extras in an environment of its own, and test it there
	rm -rf _build/light
	mkdir -p _build/light
	$(PYTHON) -m venv _build/light/venv
	_build/light/venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock build pytest hypothesis
	_build/light/venv/bin/python -m build --outdir _build/light
	_build/light/venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock _build/light/*.whl
	cp -R tests pyproject.toml _build/light
	cd _build/light && venv/bin/python -m pytest tests/test_front_door.py -k light $(OPTIONS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: $(STAMP)  ## check that the committed notebooks are up to date
	$(BIN)/python -m book.tools.refresh check

dist: $(STAMP)  ## build the source distribution and the wheel in dist
	$(BIN)/python -m build

reproduce: $(STAMP)  ## execute every chapter and compare its numbers with the committed ones
	$(BIN)/python -m book.tools.refresh reproduce

faults: $(STAMP)  ## kill long-running work 200 times at random moments and check what is on disk
	$(BIN)/python -m tests.faults --times 200 --out runs/faults.json

fuzz: $(STAMP)  ## test every statement of the theory on 10,000 random problems (half an hour)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q -m hypothesis tests/test_linear.py tests/test_moments.py tests/test_score.py tests/test_controls.py tests/test_uncertainty.py --junitxml runs/fuzz.xml

mutate: $(STAMP)  ## change the core in small ways and count the changes that no test detects (hours)
	test -x _build/mutate/bin/python || $(PYTHON) -m venv _build/mutate
	_build/mutate/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock mutmut
	HYPOTHESIS_PROFILE=mutation OMP_NUM_THREADS=1 _build/mutate/bin/python -m mutmut run

audit:  ## look up known vulnerabilities of the pinned packages on PyPI; a failed look-up is an error
	test -x _build/audit/bin/pip-audit || ($(PYTHON) -m venv _build/audit && _build/audit/bin/python -m pip install --quiet pip-audit)
	_build/audit/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

bench: $(STAMP)  ## measure the cost of extraction and scores, as ratios; results in runs/bench.json
	$(BIN)/python -m book.tools.bench

lock:  ## write requirements.lock again from the ranges in pyproject.toml
	rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	_build/lock/bin/python -m pip install --quiet 'torch==2.13.0' -e '.[book,grid,dev]'
	{ head -n 1 requirements.lock; _build/lock/bin/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\).*/\1/'; } > _build/lock.txt
	mv _build/lock.txt requirements.lock

clean:  ## remove everything that was built, except the environment
	rm -rf _build build dist runs
