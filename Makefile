# Everything happens in .venv and in this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Temporary files too stay in this folder.
export TMPDIR := $(CURDIR)/$(VENV)/tmp

.DEFAULT_GOAL := help
.PHONY: help install demo test tests browser test-browser lint typecheck bench fuzz format clean

help: ## show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "OpenILIAS needs Python 3.11 to 3.13: make PYTHON=/path/to/python3.12"; exit 2; }
	@mkdir -p $(TMPDIR)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

install: $(READY) ## make .venv and install the project into it

demo: $(READY) ## the whole way on a generated test set, offline: ends with a result and a report
	$(BIN)/ilias demo --out ilias-demo

test: $(READY) ## lint, types, and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 typecheck tests

tests: $(READY)
	OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1073741824 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

browser: $(READY)
	@command -v chromium > /dev/null || [ "$$(id -u)" != 0 ] || (apt-get update -qq && apt-get install -qq -y chromium > /dev/null) \
		|| echo "chromium cannot be installed here: the tests of the browser are skipped"
	$(BIN)/pip install --quiet --no-cache-dir --disable-pip-version-check --constraint constraints.txt 'openilias[browser]'

test-browser: browser ## the report in a browser (Debian's chromium, installed if this is root; else skipped)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_browser.py

lint: $(READY) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY) ## mypy, strict
	$(BIN)/mypy

format: $(READY) ## reformat, mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## benchmarks
	$(BIN)/pip install --quiet --no-cache-dir --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/frame.py
	$(BIN)/python benchmarks/tars.py
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/search.py --quick

fuzz: $(READY) ## ten minutes of randomly damaged files
	$(BIN)/python tests/fuzz.py --minutes 10

clean: ## remove .venv and the demo
	rm -rf $(VENV) ilias-demo
