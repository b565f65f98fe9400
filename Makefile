# The newcomer's door: `make demo` and `make test` need Python 3.11+ and a package index, no more.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Another build of PyTorch, e.g. TORCH_INDEX=<index URL> for CUDA; empty: the pinned CPU build.
TORCH_INDEX ?=
# The dataset of `make demo`; empty: a phantom is written and compared with its known connectome.
BIDS ?=
DEMO ?= demo
BENCH ?= bench
# Tests of different files run side by side, as many as there are cores, at most four at a time; in
# the order of folders, so that whole runs of the app do not begin when all else has ended.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What ruff does not see by itself: folders at the top that the package links to.
LINKED := difftract_bids/workflows/ difftract_bids/data/
BASE_IMAGE ?= debian:bookworm-slim

.PHONY: help demo test test-external test-all lint bench pictures image image-test clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) torch,)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),,--constraint constraints.txt) --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## run the whole app on a phantom (or BIDS=/path/to/dataset)
	$(BIN)/python -m difftract_bids.cli.demo --output $(DEMO) $(if $(BIDS),--bids-dir '$(BIDS)',)

test: $(VENV)/.installed  ## the tests that take seconds to minutes
	$(BIN)/pytest $(PARALLEL)

test-external: $(VENV)/.installed  ## comparisons with MRtrix3, real data, reports in Chromium: what is there
	$(BIN)/pytest $(PARALLEL) -m 'external and not slow'

test-all: $(VENV)/.installed  ## every test that this machine can run, MRtrix3 comparisons included
	$(BIN)/pytest $(PARALLEL) -m ''

lint: $(VENV)/.installed-dev  ## style, types, layers
	$(BIN)/ruff check . $(LINKED)
	$(BIN)/ruff format --check . $(LINKED)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed  ## time every stage beside MRtrix3 and DIPY (BENCH=folder of the results)
	$(BIN)/python tests/benchmarks/run.py --output $(BENCH)

pictures: $(VENV)/.installed  ## the pictures of README and docs (needs chromium and chromium-driver; minutes)
	$(BIN)/python docs/make_pictures.py

image:  ## build the container image with docker, or buildah where there is none
	.ci/build-image --base $(BASE_IMAGE) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX),)

image-test:  ## build the image for real and run the app inside it: read-only root, no network (needs root)
	.ci/test-image $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX),)

clean:
	rm -rf $(VENV) $(DEMO) build dist
