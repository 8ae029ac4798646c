# Gangline: two commands matter. `make run` starts the demo, `make test` passes the tests.
# GNU make and sh; on Windows use the commands below by hand (docs/install.md).

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
LLAMA_PYTHON ?= $(BIN)/python
# PyTorch for CPUs, a tenth of what PyPI's wheel for Linux takes; where it cannot be reached, PyPI is asked.
# On a machine with a GPU: make test-torch TORCH_INDEX=https://pypi.org/simple
TORCH   = torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# PyTorch for GPUs brings Triton itself; for CPUs it does not, and its wheels are for Linux.
TRITON  = 'triton; sys_platform == "linux" and platform_machine == "x86_64"'
NATIVE  = pyproject.toml CMakeLists.txt $(wildcard kernels/*)

.PHONY: run test test-arm test-torch conformance fuzz bench bench-engine clean

run: $(VENV)/.installed
	@$(BIN)/gangline demo --nodes 3

test: $(VENV)/.installed-test
	@scripts/check

# The kernels of 64-bit Arm, by a cross compiler and qemu-user (Debian, Ubuntu: apt install
# g++-aarch64-linux-gnu qemu-user-static).
test-arm: $(VENV)/.installed-test
	@$(BIN)/python -m tests.kernels.exercise

# The back end on PyTorch, on this machine's GPU if there is one; downloads PyTorch once. Then again
# with its kernels for GPUs, in Triton's interpreter on the CPU.
test-torch: .venv-torch/.installed
	@.venv-torch/bin/python -m pytest tests/engine/accelerated tests/engine/test_torch.py \
		tests/engine/test_triton.py tests/engine/test_conformance.py tests/engine/test_backends.py \
		tests/test_backends.py
	@TRITON_INTERPRET=1 .venv-torch/bin/python -m pytest tests/engine/test_triton.py \
		tests/engine/test_conformance.py tests/engine/accelerated/test_mixture.py \
		-k "triton or (torch and not field)" --deselect \
		tests/engine/test_triton.py::test_compilers_of_gpus_take_the_kernels

# Every model family against Hugging Face transformers, live, and every quantized form against the
# library that writes it, and Kimi's tokenizer against tiktoken; downloads PyTorch once.
conformance: .venv-conformance/.installed
	@.venv-conformance/bin/python -m tools.conformance check
	@.venv-conformance/bin/python -m tools.conformance_quantized check
	@.venv-conformance/bin/python -m tools.conformance_tiktoken check

# 10,000 malformed HTTP requests, as many broken frames, handshakes and messages, and as many
# damaged model files.
fuzz: $(VENV)/.installed-test
	@$(BIN)/python -m tests.fuzz_http --count 10000
	@$(BIN)/python -m tests.fuzz_frames --count 10000
	@$(BIN)/python -m tests.fuzz_files --count 10000

# Nothing else should run meanwhile.
bench: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.start
	@$(BIN)/python -m benchmarks.hop
	@$(BIN)/python -m benchmarks.lanes
	@$(BIN)/python -m benchmarks.kernels

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

.venv-conformance/.installed: $(NATIVE)
	$(call torch_environment,.venv-conformance,--editable . transformers==5.23.0 tiktoken==0.14.0 \
		compressed-tensors==0.20.0 accelerate==1.15.0 optimum==2.3.0 requests pillow logbar device-smi pypcre threadpoolctl)
	@# It asks for a newer PyTorch and much that packing and unpacking does not use.
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gptqmodel==7.7.0 tokenicer defuser
	@touch $@

.venv-torch/.installed: $(NATIVE)
	$(call torch_environment,.venv-torch,--editable '.[test]' $(TRITON))
	@touch $@

# An environment $(1) with PyTorch and what else is to be installed, $(2).
define torch_environment
	$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --retries 0 --timeout 10 \
		--index-url $(TORCH_INDEX) $(TORCH) || echo "$(TORCH_INDEX) has no $(TORCH) for us: asking PyPI"
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) $(2)
endef

clean:
	rm -rf $(VENV) .venv-conformance .venv-torch build
