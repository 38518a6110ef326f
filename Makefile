# Everything a developer or a visitor needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FLOWER := .venv-flower
SITE = import sysconfig; print(sysconfig.get_path("purelib"))
# More OpenMP threads than cores make torch 5 to 10 times slower; tests start several processes.
export OMP_NUM_THREADS ?= 1

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
test: $(INSTALLED) ## Every test
	$(BIN)/python -m pytest

.PHONY: lint
lint: $(INSTALLED) ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint ## The same, and unit and property tests: what to run before a commit
	$(BIN)/python -m pytest tests/unit tests/property

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

# Flower wants older versions of some packages: it gets an environment of its own, which borrows torch.
$(FLOWER)/bin/flwr: $(INSTALLED)
	$(BIN)/python -m venv $(FLOWER)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > "$$($(FLOWER)/bin/python -c '$(SITE)')/borrowed.pth"
	$(FLOWER)/bin/python -m pip install --quiet 'flwr[simulation]>=1.41'

.PHONY: bench-flower
bench-flower: $(FLOWER)/bin/flwr ## Flower at the same work, in an environment of its own (5 to 8 minutes)
	$(BIN)/python -m benchmarks.flower

.PHONY: chaos
chaos: $(INSTALLED) ## Kill things in the middle of many runs (KILLS=50, SEED=1)
	$(BIN)/python -m tests.chaos.campaign --kills $(or $(KILLS),50) --seed $(or $(SEED),1)

.PHONY: screenshots
screenshots: $(INSTALLED) ## Draw the pictures of screenshots/ anew
	$(BIN)/python -m screenshots

.PHONY: clean
clean: ## Remove .venv and caches
	rm -rf $(VENV) $(FLOWER) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
