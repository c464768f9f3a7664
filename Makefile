# Everything from a fresh clone, with nothing but Python (3.11 or newer) and make.
# The first call installs into .venv and needs a package index; later calls need no network.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin

# Where no NVIDIA GPU is visible, the CPU build of torch is taken if pip is offered one (set
# PIP_EXTRA_INDEX_URL to an index that has it), else whatever build there is.
TORCH ?= 2.13.0
GPU := $(shell nvidia-smi -L 2>/dev/null | head -n 1)

# Named by the content of pyproject.toml: a checkout that only touches the file installs nothing.
STAMP := $(VENV)/.installed-$(shell cksum < pyproject.toml | tr ' ' '-')

RESULTS ?= results/quickstart
POLICIES ?= lru fifo lfu sieve slru least_stale belady
CAPACITIES ?= 10% 20% 40% 60%
PROFILES ?= t4 rtx4090
LIVE_POLICIES ?= lru lfu
LIVE_CAPACITIES ?= 20% 60%
THROTTLE ?= 0.05GB/s,20us
PYTEST_ARGS ?=

.PHONY: help install quickstart test lint types check format clean

help:
	@echo 'make quickstart  record, simulate, calibrate, run live, and compare, into $(RESULTS)'
	@echo 'make test        run the tests (PYTEST_ARGS="-k name" for some of them)'
	@echo 'make lint        ruff: rules and format'
	@echo 'make types       mypy, strict'
	@echo 'make check       lint, types and test'
	@echo 'make format      let ruff rewrite the files'
	@echo 'make clean       remove .venv, caches and results'

install: $(STAMP)

$(STAMP):
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ -n '$(GPU)' ]; then \
		set -x; $(BIN)/python -m pip install 'torch==$(TORCH),!=$(TORCH)+cpu'; \
	else \
		set -x; $(BIN)/python -m pip install 'torch==$(TORCH)+cpu' \
		|| $(BIN)/python -m pip install 'torch==$(TORCH)'; \
	fi
	$(BIN)/python -m pip install --editable '.[dev,record]'
	@rm -f $(VENV)/.installed-*
	@touch $@

quickstart: $(STAMP)
	@mkdir -p $(RESULTS)
	@rm -rf $(RESULTS)/tiny.npz.partial $(RESULTS)/runs
	@echo '== record: which experts the embedded model chooses'
	$(BIN)/specmd record tiny --domain prose --out $(RESULTS)/tiny.npz
	@echo; echo '== simulate: what caches would make of that, on two GPUs'
	$(BIN)/specmd simulate $(RESULTS)/tiny.npz $(POLICIES:%=-e %) $(CAPACITIES:%=-c %) \
		$(PROFILES:%=--profile %) --figure $(RESULTS)/figure.png
	@echo; echo '== calibrate: what this machine can do'
	$(BIN)/specmd calibrate tiny --out $(RESULTS)/this-machine.toml
	@echo; echo '== run: live caches on this machine, measured'
	$(BIN)/specmd run tiny --domain code --max-new-tokens 8 --throttle $(THROTTLE) \
		$(LIVE_POLICIES:%=-e %) $(LIVE_CAPACITIES:%=-c %) --out $(RESULTS)/runs
	@echo; echo '== validate: the same runs, simulated beside measured'
	$(BIN)/specmd simulate --validate $(RESULTS)/runs --profile $(RESULTS)/this-machine.toml
	@echo; echo 'figure: $(RESULTS)/figure.png'

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist results *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
