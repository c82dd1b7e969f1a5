# make demo   set everything up and run the main job on a real model
# make test   set everything up, then lint, types and all tests
# make lab    open the examples in JupyterLab
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint types docs lab clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Garçon needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebook,test]"
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: lint types
	@sh tests/system.sh
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/generate.py

lab: $(READY)
	$(BIN)/jupyter lab examples/quickstart.ipynb

clean:
	rm -rf $(VENV) build dist
