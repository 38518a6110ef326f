# Everything a developer or a visitor needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FLOWER := .venv-flower
SITE = import sysconfig; print(sysconfig.get_path("purelib"))
# More OpenMP threads than cores make torch 5 to 10 times slower; tests start several processes.
export OMP_NUM_THREADS ?= 1
JOBS ?= 3
# A file's tests share daemons. In the order of the folders the slow files come first.
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fedconsole needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V`. Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing into $(VENV); torch is large, this takes a minute or more."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

.PHONY: install
install: $(INSTALLED) ## Make .venv with everything in it

.PHONY: demo
demo: $(INSTALLED) ## Three local devices train digits (HEADLESS=1: without a full screen)
	$(BIN)/fedconsole demo $(if $(HEADLESS),--headless)

.PHONY: test
test: $(INSTALLED) ## Every test (JOBS=3: so many files at a time)
	$(BIN)/python -m pytest -m 'not alone and not slow' $(PARALLEL)
	$(BIN)/python -m pytest -m 'alone and not slow'

.PHONY: lint
lint: $(INSTALLED) ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint ## The same, and unit and property tests: what to run before a commit
	$(BIN)/python -m pytest tests/unit tests/property $(PARALLEL)

.PHONY: format
format: $(INSTALLED) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(INSTALLED) ## Time everything beside plain PyTorch, and beside Flower after bench-flower
	$(BIN)/python -m benchmarks

.PHONY: bench-ecg
bench-ecg: $(INSTALLED) ## Heartbeats of 22 patients on 11 daemons, beside central training (half an hour)
	$(BIN)/python -m benchmarks.ecg

.PHONY: bench-seed
bench-seed: $(INSTALLED) ## The guide of 2020 with MNIST and three seeds, beside plain PyTorch
	$(BIN)/python -m benchmarks.seed

.PHONY: bench-latency
bench-latency: $(INSTALLED) ## The guide's run on MNIST with 10 ms of latency, beside the same on loopback
	$(BIN)/python -m benchmarks.latency

# Flower wants older versions of some packages: it gets an environment of its own, which borrows torch.
$(FLOWER)/bin/flwr: $(INSTALLED)
	$(BIN)/python -m venv $(FLOWER)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > "$$($(FLOWER)/bin/python -c '$(SITE)')/borrowed.pth"
	$(FLOWER)/bin/python -m pip install --quiet 'flwr[simulation]>=1.41'

.PHONY: bench-flower
bench-flower: $(FLOWER)/bin/flwr ## Flower at the same work, in an environment of its own (5 to 8 minutes)
	$(BIN)/python -m benchmarks.flower

.PHONY: test-slow
test-slow: $(INSTALLED) ## The tests that take long, which make test leaves out (best as root; half an hour)
	$(BIN)/python -m pytest -m slow

.PHONY: chaos
chaos: $(INSTALLED) ## Kill things in the middle of many runs (KILLS=50, SEED=1)
	$(BIN)/python -m tests.chaos.campaign --kills $(or $(KILLS),50) --seed $(or $(SEED),1)

.PHONY: soak
soak: $(INSTALLED) ## One disturbed run on ten daemons: does anything grow? (MINUTES=60, SEED=1)
	$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),60) --seed $(or $(SEED),1)

# Its own mark: nobody else needs the fuzzer.
$(VENV)/.fuzzer: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]'
	@touch $@

.PHONY: fuzz
fuzz: $(VENV)/.fuzzer ## Feed parsers with hostile bytes (MINUTES=10 of each engine, TARGET=codec: only that one)
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(addprefix --target ,$(TARGET))

.PHONY: screenshots
screenshots: $(INSTALLED) ## Draw the pictures of screenshots/ anew
	$(BIN)/python -m screenshots

.PHONY: clean
clean: ## Remove .venv and caches
	rm -rf $(VENV) $(FLOWER) .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
