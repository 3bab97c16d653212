# `make help` lists what is supported. Everything works without make, too: the recipes are scripts.
SHELL := /bin/bash
PREFIX ?= /opt/holdfast
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
python := .venv/bin/python

.PHONY: help run stop test unit lint bench soak lock install uninstall clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: ## Set up, start the engine in the background and show what it does (root)
	@scripts/run.sh

stop: ## Stop the engine; containers go on running
	@scripts/engine.sh stop

test: ## Everything: set-up, linters and every test (root)
	@scripts/test.sh all $(PYTEST_FLAGS)

unit: ## Linters and the tests that need neither root nor an engine
	@scripts/test.sh unit $(PYTEST_FLAGS)

lint: ## mypy, ruff and shellcheck
	@scripts/setup.sh unit
	@scripts/lint.sh

bench: ## Measure against Docker Engine, fetched into build/ (root)
	@scripts/bench.sh $(BENCH_FLAGS)

soak: ## Kill the engine, cut its power, let a crowd work on it: SOAK_SECONDS (600) a test or longer (root)
	@scripts/setup.sh test
	@$(python) -m pytest -m soak --soak=$${SOAK_SECONDS:-600} $(PYTEST_FLAGS)

lock: ## Write requirements/*.txt anew, with the newest releases
	@scripts/setup.sh lock

install: ## Install into PREFIX (/opt/holdfast) with systemd units; nothing is enabled (root)
	@scripts/install.sh install "$(PREFIX)"

uninstall: ## Stop the engine and remove what install put there; volumes stay. FORCE=1 stops containers that run (root)
	@scripts/install.sh uninstall "$(PREFIX)"

clean: ## Remove build products and the virtual environment
	rm -rf build .venv .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
