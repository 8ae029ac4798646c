# Gangline: two commands matter. `make run` starts the demo, `make test` passes the tests.
# POSIX make and sh; on Windows use the commands below by hand (docs/install.md).

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
NATIVE  = pyproject.toml CMakeLists.txt $(wildcard kernels/*)

.PHONY: run test check clean

run: $(VENV)/.installed
	@$(BIN)/gangline demo --nodes 3

test: $(VENV)/.installed-test
	@scripts/check

check: test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build
