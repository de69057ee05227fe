# recjax: `make quickstart` shows what it does, `make test` checks that it works. Needs python3 (3.11 or 3.12) and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
UV ?= uv

# Installed without bytecode: what is imported once is kept compiled, so that no later process compiles it again.
unexport PYTHONDONTWRITEBYTECODE

# What is installed is what was locked, file by file, and nothing else: pip compares the hashes.
LOCKED = --quiet --no-compile --no-deps --require-hashes -r

.PHONY: benchmarks help quickstart test docs attack pytest test-tpu beam lint types lock audit clean

help:
	@echo "make quickstart  install into $(VENV), train RecGPT on two embedded catalogs, rank a third"
	@echo "make test        install the development tools, lint, run the tests of a few minutes"
	@echo "make pytest      all tests, a quarter of an hour"
	@echo "make beam        install Apache Beam into $(VENV)-beam, test preparing by it"
	@echo "make test-tpu    compile for TPU pods, which needs no TPU but libtpu (0.7 GB, into $(VENV)/libtpu); minutes"
	@echo "make attack      kills, flipped bits, hostile inputs, folders and settings: counts, and status 1 on a fault; half an hour"
	@echo "make benchmarks  recjax beside its rivals: one table of ratios and aims; an hour, see experiments/benchmarks/README.md"
	@echo "make lint        ruff and the import order of the rooms"
	@echo "make types       pyright"
	@echo "make docs        the documentation as a site, in site/"
	@echo "make lock        resolve the requirements again, with the hashes of all files (needs uv)"
	@echo "make audit       look the locked versions up among known vulnerabilities (needs the network)"
	@echo "make clean       remove $(VENV) and $(RUN)"

quickstart: $(VENV)/.runtime
	$(BIN)/recjax train quickstart --run $(RUN)

test: lint
	$(BIN)/python -m pytest -m "not slow"

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest

# Beam wants older packages than the locks have, so it has a lock and an environment of its own.
beam: $(VENV)-beam/.beam
	$(VENV)-beam/bin/python -m pytest -n 0 tests/data/test_pipeline.py

$(VENV)-beam/.beam: requirements-beam.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install $(LOCKED) requirements-beam.txt
	$(VENV)-beam/bin/python -m pip install --quiet --no-compile pytest pytest-xdist
	$(VENV)-beam/bin/python -m pip install --quiet --no-compile --no-deps --editable .
	@touch $@

# libtpu lies beside the environment, so that nothing else meets it. `make test-tpu TPU_TESTS='-k slices'` runs some.
test-tpu: $(VENV)/.libtpu
	PYTHONPATH=$(VENV)/libtpu $(BIN)/python -m pytest -n 0 tests/plan/test_tpu.py $(TPU_TESTS)

# Everything that somebody's files, disks and signals may do, with fixed seeds; `make pytest` has a short form of each.
attack: $(VENV)/.dev
	$(BIN)/python experiments/benchmarks/attack_inputs.py
	$(BIN)/python experiments/benchmarks/attack_flips.py
	$(BIN)/python experiments/benchmarks/kill_resume.py --kills 20
	$(BIN)/python experiments/benchmarks/many_saves.py
	$(BIN)/python -m pytest tests/test_settings.py tests/test_files.py tests/test_scratch.py \
		tests/evaluate/test_stream_files.py tests/train/test_signals.py tests/multi_process

# The rivals' environments are made by experiments/benchmarks/peers/setup.sh, and named by RECJAX_PEERS.
benchmarks: $(VENV)/.runtime
	$(BIN)/python experiments/benchmarks/all.py --out results

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# A stamp beside each environment: installed again when the lock or the package's metadata changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else "recjax needs Python 3.11 or 3.12; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install $(LOCKED) requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --editable .
	@touch $@

# What is in one lock and not in the other, so that two cores may install (make -j2).
$(VENV)/.tools: requirements-dev.lock requirements.lock | $(VENV)/.made
	awk 'FNR == NR { held[$$0] = 1; next } /^[^ ]/ { own = !($$0 in held) } own' requirements.lock requirements-dev.lock \
		> $(VENV)/tools.txt
	$(BIN)/python -m pip install $(LOCKED) $(VENV)/tools.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime $(VENV)/.tools
	@touch $@

$(VENV)/.libtpu: requirements-tpu.txt $(VENV)/.dev
	sed -n '/^libtpu==/,/[^\\]$$/p' requirements-tpu.txt > $(VENV)/libtpu.txt
	$(BIN)/python -m pip install --target $(VENV)/libtpu $(LOCKED) $(VENV)/libtpu.txt
	@touch $@

# One resolution for both Pythons; lines with options, which may name an index, are taken out: those with hashes stay.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
	--upgrade pyproject.toml

lock:
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --extra tpu -c requirements.lock -o requirements-tpu.txt
	$(COMPILE) --extra cuda -c requirements.lock -o requirements-cuda.txt
	$(COMPILE) --extra beam -o requirements-beam.txt
	sed -i '/^--/d' requirements.lock requirements-dev.lock requirements-*.txt

# In an environment of its own, so that what looks for faults is no part of what is looked at.
audit: $(VENV)-audit/.audit
	for lock in requirements.lock requirements-dev.lock requirements-*.txt; do \
		$(VENV)-audit/bin/pip-audit --disable-pip --require-hashes --requirement $$lock || exit 1; done

$(VENV)-audit/.audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --no-compile pip-audit
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-beam $(VENV)-audit $(RUN)
