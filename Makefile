# recjax: `make quickstart` shows what it does, `make test` checks that it works. Needs python3 (3.11 or 3.12) and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
UV ?= uv

# Installed without bytecode: what is imported once is kept compiled, so that no later process compiles it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart test pytest test-tpu beam lint types lock clean

help:
	@echo "make quickstart  install into $(VENV), train RecGPT on two embedded catalogs, rank a third"
	@echo "make test        install the development tools, lint, run the tests"
	@echo "make beam        install Apache Beam into $(VENV)-beam, test preparing by it"
	@echo "make test-tpu    compile for TPU pods, which needs no TPU but libtpu (0.7 GB, into $(VENV)/libtpu); minutes"
	@echo "make lint        ruff and the import order of the rooms"
	@echo "make types       pyright"
	@echo "make lock        resolve the requirements again (needs uv)"
	@echo "make clean       remove $(VENV) and $(RUN)"

quickstart: $(VENV)/.runtime
	$(BIN)/recjax train quickstart --run $(RUN)

test: lint pytest

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest

# Beam wants older packages than the locks have, so it has a lock and an environment of its own.
beam: $(VENV)-beam/.beam
	$(VENV)-beam/bin/python -m pytest -n 0 tests/data/test_pipeline.py

$(VENV)-beam/.beam: requirements-beam.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --no-compile -r requirements-beam.txt pytest pytest-xdist
	$(VENV)-beam/bin/python -m pip install --quiet --no-compile --no-deps --editable .
	@touch $@

# libtpu lies beside the environment, so that nothing else meets it. `make test-tpu TPU_TESTS='-k slices'` runs some.
test-tpu: $(VENV)/.libtpu
	PYTHONPATH=$(VENV)/libtpu $(BIN)/python -m pytest -n 0 tests/plan/test_tpu.py $(TPU_TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# A stamp beside each environment: installed again when the lock or the package's metadata changes.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else "recjax needs Python 3.11 or 3.12; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --no-compile -r requirements-dev.lock
	@touch $@

$(VENV)/.libtpu: requirements-tpu.txt $(VENV)/.dev
	grep '^libtpu==' requirements-tpu.txt > $(VENV)/libtpu.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --target $(VENV)/libtpu -r $(VENV)/libtpu.txt
	@touch $@

# One resolution for both Pythons; lines with options, which may name an index, are taken out.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --upgrade pyproject.toml

lock:
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --extra tpu -c requirements.lock -o requirements-tpu.txt
	$(COMPILE) --extra beam -o requirements-beam.txt
	sed -i '/^--/d' requirements.lock requirements-dev.lock requirements-tpu.txt requirements-beam.txt

clean:
	rm -rf $(VENV) $(VENV)-beam $(RUN)
