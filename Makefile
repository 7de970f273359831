# Everything starts here: `make run` shows the product, `make test` proves it.

PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv

# uv from the PATH, or one of our own in a virtual environment beside the tree's.
UV := $(or $(shell command -v uv 2>/dev/null),.venv-uv/bin/uv)
UV_PIN := uv==0.13.9
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install dev run cluster test lint kills bench bench-packing load clean

help:  ## What there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.venv-uv/bin/uv:
	@$(PYTHON) -m venv .venv-uv || { echo "make: $(PYTHON) -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@.venv-uv/bin/pip install --quiet --disable-pip-version-check $(UV_PIN)

.venv/.installed: pyproject.toml uv.lock $(filter .venv-uv/%,$(UV))
	@$(UV) sync --quiet --locked --inexact --no-default-groups
	@touch $@

.venv/.installed-dev: pyproject.toml uv.lock $(filter .venv-uv/%,$(UV))
	@$(UV) sync --quiet --locked --all-groups
	@touch $@ .venv/.installed

install: .venv/.installed  ## The command at .venv/bin/gpu-extender, by lock file

dev: .venv/.installed-dev  ## The same with everything that tests need

run: install  ## The embedded cluster on port 8888, with its pending pods being placed
	@$(BIN)/python -m examples.play --snapshot examples/cluster.yaml --port 8888

cluster: dev  ## A real control plane with GPU nodes that are played: try kubectl on it; four minutes to build, once
	@$(BIN)/python -m examples.cluster_up

lint: dev  ## ruff, mypy strict, layering
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

test: lint  ## Every test
	@$(BIN)/pytest -n auto --dist loadgroup --cov --cov-report=term:skip-covered

kills: dev  ## kill -9 of the extender, KILLS times (100) in a burst of pods, under the real control plane
	@KILLS=$${KILLS:-100} $(BIN)/pytest -q tests/controlplane/live/test_deaths.py -k of_the_extender

bench: dev  ## Latencies as ratios in one run; prints the table of docs/performance.md
	@$(BIN)/python -m bench.decisions

bench-packing: dev  ## The packing benchmark: make bench-packing TRACES=folder (openb's CSV files)
	@test -n "$(TRACES)" || { echo "make: TRACES=folder with openb's CSV files is missing" >&2; exit 2; }
	@$(BIN)/python -m bench.packing "$(TRACES)" $(ARGS)

load: dev  ## Locust plays kube-scheduler for a minute and prints a verdict
	@$(BIN)/python -m loadtest

clean:  ## Remove what was made here
	rm -rf build *.egg-info .venv .venv-uv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
