# The one command is `make demo`. Everything else here is a step of it, or for those who change the code.
# Needs python3 (3.11 or later) with venv; uv and all packages go into .venv, at the versions and hashes of requirements.lock.
# The package itself is installed in place: `.venv/bin/robust-transfer` runs what lies in workflow/.
# EXTRAS adds what most people do without, from locks of its own: `attacks` (AutoAttack), `peers` (libraries compared with),
# `timm` (its architectures), `huggingface` (downloads from its hub), `slurm` and `generic` (Snakemake's executors for
# SLURM and for other schedulers: docs/cluster.md).

PYTHON ?= python3
CORES ?= all
CONFIG ?=
PROFILE ?=
EXTRAS ?=
GPU ?=
KNOWN_EXTRAS := attacks generic huggingface peers slurm timm
BIN := .venv/bin
# Snakemake, matplotlib and uv keep caches below HOME, and Snakemake stops where it cannot.
ifndef XDG_CACHE_HOME
ifneq ($(shell mkdir -p "$$HOME/.cache" 2>/dev/null && test -w "$$HOME/.cache" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache
endif
endif
IMPORTS := import torch, pandas, pyarrow.parquet, matplotlib.pyplot, pydantic, safetensors.torch, skimage.metrics, snakemake.cli
# A file's name as one word of a shell, whatever it has in it; a name with spaces is one file where there is such a file.
quoted = '$(subst ','\'',$(1))'
is_one = $(shell test -e $(call quoted,$(value CONFIG)) && echo yes)
FILES := $(if $(is_one),$(call quoted,$(value CONFIG)),$(foreach file,$(value CONFIG),$(call quoted,$(file))))
SETTINGS := $(if $(value CONFIG),--configfile $(FILES))
$(foreach extra,$(filter-out $(KNOWN_EXTRAS),$(EXTRAS)),$(error EXTRAS = $(extra): no such extra; there are: $(KNOWN_EXTRAS)))

.PHONY: help setup executors demo published plan report test test-faults check format lock docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          set up, run the default experiment, show its headline table and where its page lies"
	@echo "                   CORES=n limits the cores; CONFIG=experiments/x.yaml runs another experiment;"
	@echo "                   PROFILE=slurm runs it on a cluster (docs/cluster.md)"
	@echo "make published     draw the paper's figures from its published numbers, into results/published: no training"
	@echo "make setup         install everything into .venv; EXTRAS=\"attacks huggingface peers timm\" adds AutoAttack,"
	@echo "                   downloads from the Hugging Face Hub, libraries for benchmarks/, and timm's architectures;"
	@echo "                   slurm or generic, what Snakemake needs on a cluster"
	@echo "make executors     what it needs on a cluster, beside .venv, for the tests"
	@echo "make report        Snakemake's own report of an experiment, beside its page"
	@echo "make plan          what an experiment will take before it runs, measured here; GPU=A100: by published rates"
	@echo "make test          tests (at most 10 minutes on two cores);  make test-faults: the long ones"
	@echo "make check         formatting, linting, types, the workflow's own lint"
	@echo "make format        let the formatters write"
	@echo "make docs          renew what is generated from the configuration's models: its schema, docs/configuration.md"
	@echo "make lock          renew the requirements*.lock from pyproject.toml"
	@echo "make clean         remove .venv and caches; results/ and store/ stay"

setup: .venv/installed .venv/package $(EXTRAS:%=.venv/installed-%)

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or later is needed: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "$(PYTHON) has no venv: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@echo "Installing the locked packages into .venv (about 6 GB, most of it torch's CUDA libraries)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "$(IMPORTS)"  # compiled once here, not in a hundred short jobs
	@touch $@

# The package itself, in place: `uv pip sync` above has left it out. Built by the locked setuptools, without a network.
.venv/package: pyproject.toml .venv/installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --editable .
	@touch $@

# On top of the rest, which `uv pip sync` above has left without them. The lock is whole, so nothing is resolved again.
.venv/installed-%: requirements-%.lock .venv/installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement $<
	@touch $@

# `check` reads the configuration first: Snakemake reads --configfile before the Snakefile, and names no file in its errors.
# Beside .venv, so that other starts of Snakemake do not wait for a SLURM that is not there.
executors: .venv-slurm/installed .venv-generic/installed

.venv-%/installed: requirements-%.lock .venv/installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(@D) --no-deps --require-hashes --requirement $<
	@touch $@

demo: setup
	@$(BIN)/robust-transfer check $(SETTINGS)
	$(BIN)/snakemake $(if $(PROFILE),--workflow-profile profiles/$(PROFILE),--cores $(CORES)) $(SETTINGS)
	@echo "Page: $$($(BIN)/robust-transfer where $(SETTINGS))/index.html"

# The paper's figures and tables from its published numbers: no training, no data, no GPU.
published: setup
	@$(BIN)/robust-transfer published

# What an experiment will take: by published rates of a GPU (GPU=A100), else measured on this machine for a minute or two.
plan: setup
	@$(BIN)/robust-transfer plan $(SETTINGS) $(if $(GPU),--gpu $(GPU),--calibrate)

# Snakemake's own report, with the graph of rules, how long each job took, and every file that a rule marks.
report: setup
	@set -e; html="$$($(BIN)/robust-transfer where $(SETTINGS))/report.html"; \
	folder="$${html%/*}"; \
	if ! [ "$$html" -nt "$$folder/results.parquet" ] || [ "$$folder/claims.html" -nt "$$html" ] || \
		[ -n "$$(find workflow/report workflow/robust_transfer/dag/methods.py -newer "$$html")" ]; then \
		$(BIN)/snakemake --cores 1 $(SETTINGS) --report "$$html" \
			--report-metadata workflow/report/metadata.yaml > "$$folder/logs/html.log" 2>&1 || { cat "$$folder/logs/html.log"; exit 1; }; \
	fi; \
	echo "Report: $$html"

# Each process takes up to 3 GB, and the workflow's own tests run two jobs side by side. A third fills the time in which
# others wait for Snakemake and SLURM.
TEST_PROCESSES ?= $(shell awk '/MemAvailable/ {n = $$2 > 12000000 ? 3 : 2; print n}' /proc/meminfo 2>/dev/null || echo 2)
test: setup
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-faults: setup
	$(BIN)/pytest -m faults

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/snakefmt --no-format-shell --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/snakefmt --no-format-shell Snakefile rules

COMPILE = $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header \
	--python-version 3.11

# An extra's lock has what the extra adds, at versions that go with requirements.lock.
lock:
	@test -x $(BIN)/uv || $(MAKE) setup
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	@set -e; for extra in $(KNOWN_EXTRAS); do \
		$(COMPILE) --extra $$extra --constraint requirements.lock --output-file requirements-$$extra.lock \
			$$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) pyproject.toml; \
		sed -i.draft '/^# The following packages were excluded/,$$d' requirements-$$extra.lock; \
		rm requirements-$$extra.lock.draft; \
	done

docs: setup
	$(BIN)/robust-transfer schema

clean:
	rm -rf .venv .venv-slurm .venv-generic .pytest_cache .mypy_cache .ruff_cache workflow/robust_transfer.egg-info
