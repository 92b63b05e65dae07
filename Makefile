# Everything a person or CI does here, as one verb each. Needs Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHELL := bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-lock

.PHONY: demo test test-slow lint format types check docs wheelhouse clean

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing from requirements.lock …"
	@# torch first: another package asking for it would otherwise choose the build
	@$(BIN)/python -m pip install -q --disable-pip-version-check $$(grep '^torch==' requirements.lock) 2> >(grep -v '^WARNING' >&2)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock 2> >(grep -v '^WARNING' >&2)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e . 2> >(grep -v '^WARNING' >&2)
	@$(BIN)/python -c "import flows.cli.main, torch, zarr, prefect, rasterio"
	@touch $@

demo: $(STAMP)
	@$(BIN)/dasnet synthesize demo/scene --height 2048 --width 3072 --seed 7
	@$(BIN)/dasnet detect demo/scene/before.tif demo/scene/after.tif --output demo/run --ui

test: $(STAMP)
	@# in the order of the folders, not of the number of tests: long files with few tests would come last, one beside nothing
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

docs: $(STAMP)
	@$(BIN)/python -m scripts.rooms
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

# wheels for machines without internet; LOCK=requirements.lock for CPUs, FOR= their Python, WITHOUT= what they have
LOCK ?= requirements-cuda.lock
FOR ?= 3.11
WITHOUT ?=
wheelhouse: $(STAMP)
	@set -f; $(BIN)/python -m scripts.wheelhouse wheelhouse --lock $(LOCK) --python $(FOR) --without $(WITHOUT)

clean:
	rm -rf demo site wheelhouse .pytest_cache .mypy_cache .ruff_cache .hypothesis
