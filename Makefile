# `make demo` and `make test` are all that a fresh machine needs: Python 3.10 or newer with venv, and make.
# TORCH is the PyTorch that is installed into the new environment: by default the version that CI tests with. The
# package itself takes any newer one. A PyTorch that is in the environment already is kept.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=

comma := ,
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
DEMO = tsmerge_export/demo/chronos-bolt-nano

# The plugin's tests use NVIDIA's compiler and TensorRT-RTX, wheels for Linux on x86-64; elsewhere they are skipped.
PLUGIN_TESTS = $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m))

.PHONY: demo test test-slow test-optimum lint format clean

demo: $(VENV)/.installed-cpu
	$(BIN)/tsmerge-export $(DEMO) --merge local --ratio 1/10 -o build/demo --force

test: $(VENV)/.installed-tests
	-$(BIN)/python plugins/tools/onnxruntime_headers.py build/onnxruntime
	if command -v npm >/dev/null; then cd tests/web && npm ci --no-audit --no-fund --silent; fi
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# Files written by Hugging Face's optimum, which wants an older transformers and so an environment of its own.
test-optimum: $(VENV)/.installed-dev build/optimum/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 build/optimum/bin/python tests/generic/optimum_files.py build/optimum/files
	TSMERGE_OPTIMUM_FILES=$(CURDIR)/build/optimum/files $(BIN)/python -m pytest tests/generic/check_optimum.py $(PYTEST_ARGS)

build/optimum/.installed:
	$(PYTHON) -m venv build/optimum
	build/optimum/bin/python -m pip --disable-pip-version-check install "$(TORCH)"
	build/optimum/bin/python -m pip --disable-pip-version-check install "optimum-onnx==0.1.0" onnxruntime
	touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -c "import torch" 2>/dev/null || $(PIP) install "$(TORCH)"
	touch $@

# All that lint and tests need, in one go. Of kernel-lens only the headers of TensorRT are used, not what it depends on.
$(VENV)/.installed-tests: pyproject.toml $(VENV)/.torch
	$(PIP) install -e ".[dev$(if $(PLUGIN_TESTS),$(comma)plugin-tests)]"
	$(if $(PLUGIN_TESTS),$(PIP) install --no-deps "kernel-lens>=2.0")
	touch $(VENV)/.installed-dev $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.torch
	$(PIP) install -e ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build
