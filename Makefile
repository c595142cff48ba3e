# Two commands do all the set-up: `make run` and `make test`. Both create .venv if it is not there and install what
# pyproject.toml asks for, in the versions of constraints.txt. From where is a matter of your pip configuration.

VENV ?= .venv
PYTHON ?=
ARGS ?=
# More than cores: many tests wait for a clock or a socket.
WORKERS ?= 3

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RECENT := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: run install test prove bench check audit docs clean venv
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	@$(PY) -m llm_maker $(ARGS)

install: $(VENV)/.installed

test: $(VENV)/.installed-dev
	@$(PY) -m pytest -q -rs -n $(WORKERS) -m "not prove" $(ARGS)

# Every bar at full size, with a table in prove/results.md; takes long, and goes on where it was broken off.
prove: $(VENV)/.installed-bench
	@$(PY) -m benchmarks.prove $(ARGS)

# Speed and memory beside their goals, and beside a typical bot; ARGS="--json FILE" keeps the figures.
bench: $(VENV)/.installed-bench
	@$(PY) -m benchmarks $(ARGS)

# Style, types, the import contract and our bans, alone; then the audit.
check: $(VENV)/.installed-dev
	@$(PY) -m pytest -q tests/test_tidy.py
	@$(PY) deploy/audit.py

# Known holes in what we depend on, where a package index can be asked.
audit: $(VENV)/.installed-dev
	@$(PY) deploy/audit.py

# The pages that are made of the program itself.
docs: $(VENV)/.installed
	@$(PY) -m llm_maker.config_reference > docs/.configuration.md && mv docs/.configuration.md docs/configuration.md

# What can be made again; never .venv, logs/ or positions/.
clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find llm_maker tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | venv
	@echo "Installing into $(VENV) ..." >&2
	@$(PIP) --editable . >&2
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | venv
	@echo "Installing into $(VENV), with the tools for tests ..." >&2
	@$(PIP) --editable ".[dev]" >&2
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt | venv
	@echo "Installing into $(VENV), with what the benchmarks compare ..." >&2
	@$(PIP) --editable ".[dev,bench]" >&2
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

# The environment is made with the first Python that is recent enough; one that is there is kept, and checked.
venv:
	@if [ -e "$(PY)" ]; then \
	  "$(PY)" -c "$(RECENT)" 2>/dev/null && "$(PY)" -m pip --version >/dev/null 2>&1 && exit 0; \
	  echo "$(VENV) holds no working Python 3.11 or newer with pip. Move it away and try again." >&2; exit 1; \
	fi; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  "$$python" -c "$(RECENT)" 2>/dev/null || continue; \
	  "$$python" -m venv "$(VENV)" && exit 0; \
	  rm -rf "$(VENV)"; \
	  echo "$$python cannot create $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	done; \
	echo "Python 3.11 or newer was not found. Install it, or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1
