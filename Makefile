# Every target does its own set-up; nothing needs to be installed by hand first. Try: make help
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help selftest soak test lint format compiled clean-venv

# PYTHON=/path/to/python3 chooses the interpreter of a new .venv; ARGS=... goes on to the command.
export PYTHON
ARGS ?=
RUNS ?= 10000

help:
	@printf '%s\n' \
	  'make selftest [ARGS=...]  set up what is needed, then run the quick selection of the selftest matrix' \
	  'make test [ARGS=...]      set up what is needed, then ruff, mypy and pytest with branch coverage' \
	  'make soak [RUNS=10000]    set up what is needed, then run so many seeds over bad networks in virtual time' \
	  'make lint                 ruff and mypy only' \
	  'make format               let ruff put the files into their form' \
	  'make compiled             a copy in build/compiled whose stack is compiled by mypyc: some minutes, then it runs faster' \
	  'make clean-venv           remove .venv; the next run makes it anew' \
	  '' \
	  'PYTHON=/path/to/python3   the interpreter to use (3.11 or newer)' \
	  'ARGS="--family 4"         arguments for testbed selftest (--select full), or for pytest'

selftest:
	@scripts/set_up runtime
	@.venv/bin/python -m testbed selftest --select quick --tap $(ARGS)

soak:
	@scripts/set_up runtime
	@.venv/bin/python -m testbed soak --runs $(RUNS) $(ARGS)

test:
	@scripts/set_up dev
	@scripts/check all $(ARGS)

lint:
	@scripts/set_up dev
	@scripts/check lint

format:
	@scripts/set_up dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

compiled:
	@scripts/set_up dev
	@scripts/compile

clean-venv:
	@rm -rf .venv
