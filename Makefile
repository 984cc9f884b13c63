SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test faults soak load bench lint lock audit sbom jupyter screenshots clean

# Tests and tools run on what .venv holds, whatever the caller's Python is.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PATH := $(PATH):/usr/sbin:/sbin

help: ## Shows these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Installs all that is needed: Debian packages that are missing (it names them), then .venv from requirements.lock
	@bash tools/setup.sh

demo: ## Sets up, starts a practice cluster of three nodes, builds etcd and flannel on it, shows the records (needs root)
	@bash tools/demo.sh

test: setup lint ## Sets up, then runs every check and test; with CI=true nothing may be skipped
	.venv/bin/pytest -n 2 --dist loadgroup --durations 15

faults: setup ## Hits a run at each point by each fault, and finishes it (needs root; ONLY='phase 03' is shorter), writes docs/reliability.md
	.venv/bin/python tools/faults.py --only '$(ONLY)'

soak: setup ## Writes steadily while members restart and runs are made (needs root; MINUTES=60), writes docs/reliability.md
	.venv/bin/python tools/soak.py --minutes $(or $(MINUTES),60)

load: setup ## Builds on busy nodes, over a long link, and ten times in a row (needs root), writes docs/reliability.md
	.venv/bin/python tools/load.py --rounds $(or $(ROUNDS),10)

bench: setup ## Measures the same job by bash, Ansible, pyinfra and this (needs root; ROUNDS=3 is shorter), writes docs/performance.md
	.venv/bin/python benchmarks/bench.py --rounds $(or $(ROUNDS),5) $(BENCH)

lint: setup ## Ruff, formatting, types, and no outputs in the notebooks
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/nbstripout --verify --keep-id --extra-keys 'metadata.papermill cell.metadata.papermill' notebooks/*.ipynb

lock: setup ## Writes requirements.lock anew from pyproject.toml (UPGRADE=--upgrade takes newer versions)
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-header --extra dev $(UPGRADE) pyproject.toml -o requirements.lock

audit: setup ## Holds requirements.lock against known vulnerabilities (exit status 3 where their data can't be reached)
	.venv/bin/python tools/audit.py

sbom: setup ## Writes dist/sbom.cdx.json (CycloneDX) from requirements.lock
	.venv/bin/python tools/audit.py --sbom dist/sbom.cdx.json

jupyter: setup ## Starts the practice cluster where it is not up (needs root), and opens JupyterLab on copies of the notebooks
	.venv/bin/runbook sandbox up
	.venv/bin/runbook jupyter

screenshots: setup ## Makes docs/pictures/ anew from a practice cluster of its own (needs root)
	PYTHONPATH=tests/browser:tests/sandbox .venv/bin/python tools/screenshots.py

clean: ## Removes .venv and caches, never records or the state of a cluster
	rm -rf .venv .venv-bench .venv-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -path ./records -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
