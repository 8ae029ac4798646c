# Gangline: two commands matter. `make run` starts the demo, `make test` passes the tests.
# POSIX make and sh; on Windows use the commands below by hand (docs/install.md).

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
LLAMA_PYTHON ?= $(BIN)/python
NATIVE  = pyproject.toml CMakeLists.txt $(wildcard kernels/*)

.PHONY: run test fuzz bench bench-engine clean

run: $(VENV)/.installed
	@$(BIN)/gangline demo --nodes 3

test: $(VENV)/.installed-test
	@scripts/check

# 10,000 malformed HTTP requests, and as many broken frames, handshakes and messages.
fuzz: $(VENV)/.installed-test
	@$(BIN)/python -m tests.fuzz_http --count 10000
	@$(BIN)/python -m tests.fuzz_frames --count 10000

# Nothing else should run meanwhile.
bench: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.start
	@$(BIN)/python -m benchmarks.hop
	@$(BIN)/python -m benchmarks.lanes
	@$(BIN)/python benchmarks/kernels.py

# Against llama.cpp: LLAMA_PYTHON is an interpreter that has llama-cpp-python and gguf.
bench-engine: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.engine --llama-python $(LLAMA_PYTHON)

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
