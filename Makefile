# make demo   set up what it needs, and run the main job on a real model; says first what that takes
#             make demo MODEL=gemma3-270m: the same with Gemma 3 270M, another 238 MB under Google's Gemma terms
# make test   set up the rest too, then lint, types and tests
# make quick  lint, types, and the tests that run in one process: for before each commit
# make site   these pages and the reference as a site, in build/site
# make soak   twenty minutes of mixed clients and faults; the figures go to build/soak.json
# make kills  a hundred and fifty ranks killed at any moment, on one rank, tp=3 and pp=2
# make matrix  the tests with other releases of torch and transformers, in environments of their own: an hour, 25 GB of disk
# make bench  measure how fast it is, beside what one would do without it
# make javascript   types and tests of the widgets' JavaScript, which takes Node (20 or newer)
# make training  the experiment of a post on training transparency, whole: an hour on two cores
# make page   a web page on SmolLM2: launches it where it does not run, opens a door over HTTP, prints the address and the token's file
# make clients  openapi.json, the types for TypeScript and the page's client anew from the table of operations, which takes Node (20 or newer)
# make lab    open the examples in JupyterLab
# make side-bar   build the side bar anew, which takes Node; its bundle is under version control
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_FOR_TESTS := $(VENV)/.ready-for-tests
MODEL ?= smollm2
JAVASCRIPT := tests/widgets/javascript
TYPESCRIPT := $(JAVASCRIPT)/node_modules/.ready
GENERATOR := clients/typescript/node_modules/.ready

.PHONY: setup demo quick test needed-by-tests site soak kills matrix bench lint types javascript docs training lab page clients side-bar clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt garcon_jupyter/labextension/package.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Garçon needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@echo "Once, about five minutes and 2 GB: Python packages into $(VENV) (1.5 GB; more where pip takes torch for GPUs),"
	@echo "and, with the first use, SmolLM2 (93 MB to download, 0.5 GB on disk)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebook]"
	@touch $@

$(READY_FOR_TESTS): $(READY)
	@echo "Once: what the tests need besides, 0.7 GB."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebook,test]"
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py --model $(MODEL)

# All at once, each with its lines together. With a thread each: those of several processes would wait for one another.
quick: $(READY_FOR_TESTS)
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target lint types in-process-1 in-process-2

in-process-%: $(READY_FOR_TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quick --part $*/2 --durations=10

test: $(READY_FOR_TESTS)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target lint types needed-by-tests
	sh tests/all.sh $(BIN)/python

# What they need and Python cannot bring: programs of the system, and TypeScript.
needed-by-tests:
	@sh tests/system.sh
	@command -v npm >/dev/null && $(MAKE) --no-print-directory $(TYPESCRIPT) || \
	  echo "Without TypeScript: the tests leave out the types of the widgets' JavaScript."

lint: $(READY_FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY_FOR_TESTS)
	$(BIN)/mypy

# TypeScript alone, 20 MB, beside the tests that use it.
$(TYPESCRIPT): $(JAVASCRIPT)/package-lock.json
	cd $(JAVASCRIPT) && npm ci --ignore-scripts --silent
	@touch $@

javascript: $(TYPESCRIPT)
	cd $(JAVASCRIPT) && node node_modules/typescript/bin/tsc && node --test

soak: $(READY_FOR_TESTS)
	@mkdir -p build
	$(BIN)/python -m tests.soak --json build/soak.json

kills: $(READY_FOR_TESTS)
	for degrees in "--tp 1" "--tp 3" "--pp 2"; do $(BIN)/python -m tests.kills --kills 50 $$degrees || exit 1; done

matrix: $(READY_FOR_TESTS)
	$(BIN)/python -m tests.matrix --remove

bench: $(READY_FOR_TESTS)
	$(BIN)/python -m benchmarks

training: $(READY_FOR_TESTS)
	$(BIN)/python -m examples.post

docs: $(READY_FOR_TESTS)
	$(BIN)/python -m docs.generate

site: $(READY_FOR_TESTS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

lab: $(READY)
	$(BIN)/jupyter lab examples/quickstart.ipynb

PORT ?= 8484

page: $(READY)
	@$(BIN)/python -c 'import starlette, uvicorn' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[http]"
	$(BIN)/garcon launch $(MODEL) --name page
	$(BIN)/garcon serve page --port $(PORT)

clients: $(READY_FOR_TESTS) $(GENERATOR)
	$(BIN)/python -m clients.write

$(GENERATOR): clients/typescript/package-lock.json
	cd clients/typescript && npm ci --ignore-scripts --silent
	@touch $@

side-bar: $(READY)
	$(BIN)/python -m pip install --quiet "jupyter-builder>=1.2"
	cd labextension && PATH="$(CURDIR)/$(BIN):$$PATH" && jlpm install --immutable && jlpm build:prod
	$(BIN)/python labextension/digest.py --write
	$(MAKE) setup

clean:
	rm -rf $(VENV) build dist $(JAVASCRIPT)/node_modules clients/typescript/node_modules clients/typescript/build
