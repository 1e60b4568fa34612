# Set-up, tests and tables in one virtual environment, whatever environment is active. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# cpu or cuda; an environment that exists keeps its kind unless TORCH says otherwise
TORCH ?= $(or $(shell head -n 1 $(VENV)/.made 2>/dev/null),cpu)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
CORES ?= all
BENCHMARK ?= digits
ARGS ?=

OVERVIEW = results/$(BENCHMARK)/tables/overview.md
STAMP = $(VENV)/.ready-$(TORCH)
PEERS := .venv-peers
# A virtual environment holds absolute paths: if it was copied or moved here, it belongs to the other folder.
HERE := $(shell test "$$(tail -n 1 $(VENV)/.made 2>/dev/null)" = "$$PWD" && echo yes)

# An interpreter path or a user-wide pip setting of another project must not reach into this environment.
unexport PYTHONPATH PYTHONHOME
# Compiled modules are kept beside their sources: a job that compiles them anew starts half a second of CPU time later.
unexport PYTHONDONTWRITEBYTECODE
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONNOUSERSITE := 1

# Snakemake and matplotlib keep caches under the home directory, and fail or warn if they cannot write there.
ifneq ($(shell mkdir -p "$${XDG_CACHE_HOME:-$$HOME/.cache}" 2>/dev/null && test -w "$${XDG_CACHE_HOME:-$$HOME/.cache}" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.cache
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
endif

.PHONY: help setup tables test coverage test-slow faults test-system bench lint docs clean-env anew

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  setup:  TORCH=cpu|cuda  PYTHON=python3.12"
	@echo "  tables: BENCHMARK=digits  CORES=4  ARGS='--dry-run'"
	@echo "  test:   ARGS='-k solvers'  ARGS='-n 0' (one process)"

setup: $(STAMP)  ## make .venv for the benchmarks (TORCH=cpu, the default, or TORCH=cuda)
	@echo "ready; for extras: $(BIN)/pip install -c constraints.txt 'diffbench[parquet,slurm,lsun]'" \
	    '(parquet files, a Slurm cluster, LSUN)'

# torch is installed first because its kind decides where it comes from; constraints.txt pins the version alone.
$(STAMP): pyproject.toml constraints.txt $(if $(HERE),,anew)
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH=$(TORCH): must be cpu or cuda" >&2; exit 1;; esac
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version='missing or broken'; \
	case "$$version" in 3.11|3.12|3.13) ;; *) \
	    echo "diffbench needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$version." \
	        "Choose another: make setup PYTHON=/path/to/python3.12" >&2; exit 1;; esac
	@test "$$(cat $(VENV)/.made 2>/dev/null)" = "$$(printf '%s\n%s' $(TORCH) "$$PWD")" || rm -rf $(VENV)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.ready-*
	@printf '%s\n%s\n' $(TORCH) "$$PWD" > $(VENV)/.made
	@torch=$$(grep '^torch==' constraints.txt); vision=$$(grep '^torchvision==' constraints.txt); \
	if test $(TORCH) = cpu && ! $(BIN)/python -c 'import torch' 2>/dev/null \
	    && ! $(BIN)/pip install -q --dry-run --no-deps "$$torch+cpu" >/dev/null 2>&1; then \
	    echo "pip's own index has no CPU build of $$torch: asking $(TORCH_CPU_INDEX)"; \
	    $(BIN)/pip install -q --no-deps --retries 1 --timeout 20 \
	        --index-url $(TORCH_CPU_INDEX) "$$torch" "$$vision" \
	    || echo "$(TORCH_CPU_INDEX) is not reached: taking $$torch from pip's own index (larger; it runs on a CPU too)"; \
	fi
	$(BIN)/pip install -q -c constraints.txt -e .
	@$(BIN)/python -c 'import torch; print(f"torch {torch.__version__}, CUDA {torch.version.cuda or None}")'
	@if test $(TORCH) = cuda; then $(BIN)/python -c 'import sys, torch; sys.exit(not torch.version.cuda)' || { \
	    echo "TORCH=cuda: pip found a build of torch without CUDA; set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL" \
	        "(https://pytorch.org/get-started) and run make clean-env setup again" >&2; exit 1; }; fi
	@touch $@

# What tests, linters and the site need beside, each with a stamp of its own.
$(STAMP)-test $(STAMP)-lint $(STAMP)-docs: $(STAMP)-%: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[$*]'
	@touch $@

tables: $(STAMP)  ## run the benchmark and print its overview table
	@# Snakemake runs code in some YAML files before it reads the workflow: such a file is refused here.
	@$(if $(filter-out digits,$(BENCHMARK)),$(BIN)/diffbench check-config --text config/$(BENCHMARK).yaml)
	@start=$$(date +%s); status=0; \
	$(BIN)/snakemake --cores $(CORES) \
	    $(if $(filter-out digits,$(BENCHMARK)),--configfile config/$(BENCHMARK).yaml) $(ARGS) || status=$$?; \
	seconds=$$(( $$(date +%s) - start )); \
	echo; \
	if test -f $(OVERVIEW); then cat $(OVERVIEW); else echo "no $(OVERVIEW) yet"; fi; \
	echo; \
	printf '%s: exit status %d after %d min %02d s (set-up not counted); the page with all tables: %s\n' \
	    $(BENCHMARK) $$status $$((seconds / 60)) $$((seconds % 60)) results/$(BENCHMARK)/index.html; \
	exit $$status

test test-slow: PYTEST = $(BIN)/pytest -n auto --dist loadgroup
test: $(STAMP)-test  ## run the tests, on all cores, but for the slow ones
	$(PYTEST) -m 'not slow' $(ARGS)

coverage: $(STAMP)-test  ## run the same tests and count the lines of diffbench/ that they run: at least 92 %
	$(PYTEST) -m 'not slow' --cov=diffbench --cov-report=term:skip-covered --cov-fail-under=92 $(ARGS)

test-slow: $(STAMP)-test  ## run the slow tests: whole runs, a browser, distributions of many samples
	$(PYTEST) -m slow $(ARGS)

# The subjects of tests/faults/README.md; some of its tests lie beside those of a module.
FAULTS = tests/faults tests/slurm $(addprefix tests/test_,$(addsuffix .py,downloads gpus pickled_arrays products server shard state train workflow))

faults: $(STAMP)-test  ## run the tests of kills, damage and signals, the long ones too (an hour of 2 cores)
	$(BIN)/pytest -n auto --dist loadgroup --faults $(FAULTS) $(ARGS)

test-system:  ## print the Debian packages that tests need: a browser and npm for the page; Slurm with accounting, for root
	@echo chromium nodejs npm munge slurmctld slurmd slurmdbd mariadb-server-core

bench: $(PEERS)/.ready  ## compare speed and memory with diffusers, azula, k-diffusion and torch-fidelity (half an hour)
	$(PEERS)/bin/python benchmarks/bench.py $(ARGS)

# An environment of its own, which sees the packages of ours: what the peers need must not reach into it.
$(PEERS)/.ready: constraints.txt benchmarks/peers.txt $(STAMP)
	rm -rf $(PEERS)
	$(BIN)/python -m venv $(PEERS)
	@where='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	    echo "import site; site.addsitedir('$$($(BIN)/python -c "$$where")')" \
	    > "$$($(PEERS)/bin/python -c "$$where")/ours.pth"
	$(PEERS)/bin/pip install -q -c constraints.txt huggingface_hub
	$(PEERS)/bin/pip install -q --no-deps -r benchmarks/peers.txt
	@touch $@

lint: $(STAMP)-lint  ## check style, types, layers and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	@# The linter of containers is not there for every kind of machine.
	$(if $(shell test -x $(BIN)/hadolint && echo yes),$(BIN)/hadolint Dockerfile)

docs: $(STAMP)-docs  ## build the documentation into site/, and check its links; no page fetches anything
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@! grep -rlE '<(script|link|img|iframe)[^>]* (src|href)="(https?:)?//' site --include='*.html' \
	    || { echo "these pages fetch something from elsewhere" >&2; exit 1; }
	@echo "site/index.html"

clean-env:  ## remove the virtual environment
	rm -rf $(VENV) $(PEERS)
