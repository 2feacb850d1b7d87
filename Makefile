# The front door. Every target makes or updates .venv by itself; it needs
# python3 (3.11 or newer), make and a package index, and nothing else.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help demo test fuzz book lab notebooks bench clean
.NOTPARALLEL:

help:
	@echo "make demo       train four methods on a small world, show the table (minutes)"
	@echo "make test       run every test and every notebook"
	@echo "make fuzz       try COUNT=10000 damaged and odd inputs (minutes)"
	@echo "make book       build the book into _build/html, warnings as errors"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  export, re-run and clean every notebook"
	@echo "make bench      compare the speed of augmentation libraries (minutes)"
	@echo "make clean      remove what the other targets made, but for .venv and runs"

demo: .venv/core.stamp
	$(BIN)/ciper demo

test: .venv/full.stamp
	CIPER_SCALE=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests nbs \
	  --nbval-lax --nbval-current-env -n $(JOBS) --dist loadfile

COUNT ?= 10000
fuzz: .venv/full.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --count $(COUNT)

book: .venv/full.stamp
	$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "Open _build/html/index.html in a browser."

lab: .venv/full.stamp
	$(BIN)/python -m jupyterlab nbs

notebooks: .venv/full.stamp
	$(BIN)/nbdev_export
	$(BIN)/python nbs/_ext/execute.py nbs/*.ipynb nbs/*/*.ipynb
	$(BIN)/nbdev_clean

bench: .venv/bench.stamp
	$(BIN)/python benchmarks/augment.py

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf ciper/__pycache__ tests/__pycache__ nbs/__pycache__ nbs/_ext/__pycache__

# The demo needs the package alone; what develops it needs all extras but one.
.venv/core.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e .
	@touch $@

.venv/full.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[book,cluster,dev,notebook]'
	@touch .venv/core.stamp $@

.venv/bench.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[bench]'
	@touch .venv/core.stamp $@

# pip is the last file that venv writes: an interrupted one is made again.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here: \
	install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: \
	$(PYTHON) is $$($(PYTHON) -V 2>&1), ciper needs 3.11 or newer; name one: \
	make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
