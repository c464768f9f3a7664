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

# $(call torch,DIR): put torch into the environment DIR.
ifeq ($(GPU),)
torch = $(1)/bin/python -m pip install 'torch==$(TORCH)+cpu' || $(1)/bin/python -m pip install 'torch==$(TORCH)'
else
torch = $(1)/bin/python -m pip install 'torch==$(TORCH),!=$(TORCH)+cpu'
endif

# $(call bare,DIR): make the environment DIR, empty, if there is none.
bare = test -x $(1)/bin/python || $(PYTHON) -m venv $(1)

# All other packages come from the lock. Named by the content of both files: a checkout that only
# touches them installs nothing.
LOCK := requirements.lock
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml $(LOCK) | cksum | tr ' ' '-')

RESULTS ?= results/quickstart
POLICIES ?= lru fifo lfu sieve slru least_stale belady
CAPACITIES ?= 10% 20% 40% 60%
PROFILES ?= t4 rtx4090
LIVE_POLICIES ?= lru lfu
LIVE_CAPACITIES ?= 20% 60%
THROTTLE ?= 0.05GB/s,20us
PYTEST_ARGS ?=
EXPERIMENTS ?=
ACCELERATOR_ARGS ?=

# With the lock a warning fails; of other releases it is only reported (docs/decisions.md).
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help install lock quickstart reproduce accelerator test test-newest test-oldest lint types check format clean

help:
	@echo 'make quickstart  record, simulate, calibrate, run live, and compare, into $(RESULTS)'
	@echo 'make reproduce   the questions of the paper asked again, into experiments (EXPERIMENTS="batch scope": those)'
	@echo 'make test        run the tests (PYTEST_ARGS="-k name" for some of them)'
	@echo 'make test-newest run them with the newest release of everything but torch'
	@echo 'make test-oldest run them with the oldest releases that pyproject.toml allows'
	@echo 'make lock        write requirements.lock anew, from the newest releases'
	@echo 'make accelerator tests of the accelerator here, and a page of evidence in docs/accelerators'
	@echo 'make lint        ruff: rules and format'
	@echo 'make types       mypy, strict'
	@echo 'make check       lint, types and test'
	@echo 'make format      let ruff rewrite the files'
	@echo 'make clean       remove the environments, caches and results'

install: $(STAMP)

$(STAMP):
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python' >&2; exit 1; }
	$(call bare,$(VENV))
	$(call torch,$(VENV))
	$(BIN)/python -m pip install --constraint $(LOCK) setuptools
	$(BIN)/python -m pip install --constraint $(LOCK) --no-build-isolation --editable '.[dev,record]'
	@rm -f $(VENV)/.installed-*
	@touch $@

quickstart: $(STAMP)
	@mkdir -p $(RESULTS)
	@rm -rf $(RESULTS)/tiny.npz.partial $(RESULTS)/runs
	@echo '== record: which experts the embedded model chooses'
	$(BIN)/specmd record tiny --domain prose --out $(RESULTS)/tiny.npz
	@echo; echo '== simulate: what caches would make of that, on two GPUs'
	$(BIN)/specmd simulate $(RESULTS)/tiny.npz $(POLICIES:%=-e %) $(CAPACITIES:%=-c %) \
		$(PROFILES:%=--profile %)
	@echo; echo '== calibrate: what this machine can do'
	$(BIN)/specmd calibrate tiny --force --out $(RESULTS)/this-machine.toml
	@echo; echo '== run: live caches on this machine, measured'
	$(BIN)/specmd run tiny --domain code --max-new-tokens 8 --throttle $(THROTTLE) \
		$(LIVE_POLICIES:%=-e %) $(LIVE_CAPACITIES:%=-c %) --out $(RESULTS)/runs
	@echo; echo '== validate: the same runs, simulated beside measured'
	$(BIN)/specmd simulate --validate $(RESULTS)/runs --profile $(RESULTS)/this-machine.toml \
		--figure $(RESULTS)/figure.png
	$(BIN)/python experiments/reproduce.py --draw capacity $(RESULTS)/real-model.png
	@echo; echo 'measured beside simulated, this machine and the small model: $(RESULTS)/figure.png'
	@echo 'simulated, real routing of GPT-OSS-20B on GPUs (experiments/capacity): $(RESULTS)/real-model.png'

# What has a result is not run again; `make clean` forgets results.
reproduce: $(STAMP)
	$(BIN)/python experiments/reproduce.py $(EXPERIMENTS)

test: $(STAMP)
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

test-newest:
	$(call bare,.venv-newest)
	$(call torch,.venv-newest)
	.venv-newest/bin/python -m pip freeze | grep '^torch==' > .venv-newest/torch.txt
	.venv-newest/bin/python -m pip install --constraint .venv-newest/torch.txt \
		--upgrade --upgrade-strategy eager --editable '.[dev,record]'
	.venv-newest/bin/python $(PYTEST) -W default $(PYTEST_ARGS)

test-oldest:
	$(call bare,.venv-oldest)
	$(call torch,.venv-oldest)
	.venv-oldest/bin/python .ci/requirements.py oldest > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --requirement .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --no-deps --no-build-isolation --editable .
	.venv-oldest/bin/python $(PYTEST) -W default $(PYTEST_ARGS)

# An environment of its own, so that nothing but pyproject.toml decides.
lock:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python' >&2; exit 1; }
	$(call bare,.venv-newest)
	$(call torch,.venv-newest)
	.venv-newest/bin/python -m pip freeze | grep '^torch==' > .venv-newest/torch.txt
	.venv-newest/bin/python -m pip install --quiet --dry-run --ignore-installed \
		--report .venv-newest/report.json --requirement .venv-newest/torch.txt '.[dev,record]'
	.venv-newest/bin/python .ci/requirements.py lock .venv-newest/report.json > $(LOCK).new
	mv $(LOCK).new $(LOCK)

# Its accelerator tests are a part of the selftest.
accelerator: $(STAMP)
	$(BIN)/specmd selftest $(ACCELERATOR_ARGS)

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
	rm -rf $(VENV) .venv-newest .venv-oldest build dist results *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
