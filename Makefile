# `make demo` and `make test` are all that a fresh machine needs: Python 3.10 or newer with venv, and make.
# TORCH is the PyTorch that is installed into the new environment: by default the version that CI tests with. The
# package itself takes any newer one. A PyTorch that is in the environment already is kept, and is in no lock: which
# build it is (for CPUs, for CUDA) is the machine's affair. All else comes from requirements/, by hash; see `make lock`.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
UV = build/uv/bin/uv
UV_PIP = build/uv/bin/python requirements/uv_as_pip.py $(UV) pip
DEMO = tsmerge_export/demo

# The plugin's tests use NVIDIA's compiler and TensorRT-RTX, wheels for Linux on x86-64; elsewhere they are skipped.
PLUGIN_TESTS = $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m))

.PHONY: demo docs test test-slow test-optimum test-oldest test-newest wheels lint format lock clean

demo: $(VENV)/.installed-cpu
	$(BIN)/tsmerge-export $(DEMO)/chronos-bolt-half-nano --original $(DEMO)/chronos-bolt-nano -o build/demo --force

test: $(VENV)/.installed-tests
	-$(BIN)/python plugins/tools/onnxruntime_headers.py build/onnxruntime
	if command -v npm >/dev/null; then cd tests/web && npm ci --no-audit --no-fund --silent; fi
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)
	TSMERGE_EXAMPLES=2000 $(BIN)/python -m pytest tests/methods tests/ops $(PYTEST_ARGS)

# Files written by Hugging Face's optimum, which wants an older transformers and so an environment of its own.
test-optimum: $(VENV)/.installed-dev build/optimum/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 build/optimum/bin/python tests/graphs/optimum_files.py build/optimum/files
	TSMERGE_OPTIMUM_FILES=$(CURDIR)/build/optimum/files $(BIN)/python -m pytest tests/graphs/check_optimum.py $(PYTEST_ARGS)

build/optimum/.installed:
	$(PYTHON) -m venv build/optimum
	build/optimum/bin/python -m pip --disable-pip-version-check install "$(TORCH)"
	build/optimum/bin/python -m pip --disable-pip-version-check install "optimum-onnx==0.1.0" onnxruntime
	touch $@

# The ends of what pyproject.toml allows, each in an environment of its own: parity of every family, pipelines, commands.
# Before a release; docs/versions.md says what was run. A part: make test-newest VERSION_TESTS=tests/cli.
# scikit-build-core: the wheel of native operators loads at both ends (where ONNX Runtime's headers are).
# onnx-graphsurgeon: `--runtime tensorrt` answers for a file that is broken only where its own dependency is installed.
VERSION_TESTS = tests/families tests/forecast tests/tables tests/checkpoint tests/cli tests/test_api.py \
	tests/compile/test_artefacts.py tests/compile/test_known_dims.py tests/verify/test_generation.py \
	tests/plugins/test_wheels.py
VERSION_EXTRAS = advise,cpu,export,forecast,plot,tune
RESOLUTION = $(if $(filter build/oldest/%,$@),lowest-direct,highest)

test-oldest test-newest: test-%: build/%/.installed
	build/$*/bin/python -c "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in '$(VERSIONS)'.split()), sep='\n')"
	build/$*/bin/python -m pytest -n auto --dist loadfile $(VERSION_TESTS) $(PYTEST_ARGS)

VERSIONS = torch transformers chronos-forecasting onnx onnx-ir onnxscript onnxruntime numpy pandas safetensors huggingface_hub

build/oldest/.installed build/newest/.installed: pyproject.toml $(UV)
	$(PYTHON) -m venv --clear $(@D)
	$(UV_PIP) install --python $(@D)/bin/python --resolution $(RESOLUTION) -e ".[$(VERSION_EXTRAS)]" \
		"cmake>=3.24" "ninja>=1.11" "scikit-build-core>=1.0" "hypothesis>=6.100" "onnx-graphsurgeon>=0.5.2" "psutil>=5.9" "pytest>=8.2" "pytest-xdist>=3.6"
	touch $@

# The native operators for ONNX Runtime's CPU provider, as sdist and as a wheel that names the systems it runs on.
wheels: $(VENV)/.installed-tests
	rm -rf build/wheels
	cd plugins/wheels/tsmerge-ort && $(abspath $(BIN))/python -c \
		"import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])" $(CURDIR)/build/wheels
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) wheel --no-build-isolation --no-deps -w build/wheels/linux build/wheels/*.tar.gz
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair -w build/wheels build/wheels/linux/*.whl

# The pages of docs/ as a site, in build/site; a warning is an error. Its environment needs neither PyTorch nor the package:
# the reference of Python is read from the sources, and parsing flags needs the standard library alone.
docs: build/docs/.installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) build/docs/bin/python -m mkdocs build --strict

build/docs/.installed: requirements/docs.txt $(UV)
	$(PYTHON) -m venv --clear $(@D)
	$(UV_PIP) install --python build/docs/bin/python --require-hashes --no-deps -r $<
	touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -c "import torch" 2>/dev/null || $(PIP) install "$(TORCH)"
	touch $@

# All that lint and tests need, in one go. Of kernel-lens only the headers of TensorRT are used, not what it depends on.
$(VENV)/.installed-tests: requirements/$(if $(PLUGIN_TESTS),tests,dev).txt requirements/apart.txt pyproject.toml $(VENV)/.torch $(UV)
	$(call install,$<)
	$(UV_PIP) install --python $(BIN)/python --require-hashes --no-deps -r requirements/apart.txt
	touch $(VENV)/.installed-dev $@

$(VENV)/.installed-%: requirements/%.txt pyproject.toml $(VENV)/.torch $(UV)
	$(call install,$<)
	touch $@

# Locked packages and nothing else, then the package itself; what it or any other lacks ends the command.
define install
$(UV_PIP) install --python $(BIN)/python --require-hashes --no-deps -r $(1)
$(UV_PIP) install --python $(BIN)/python --no-deps -e .
! $(PIP) check | grep -v -e "^No broken requirements" -e "^kernel-lens " -e "^tritonclient " -e nvidia-
endef

# New versions of everything that pyproject.toml allows, for every Python and system at once.
lock: $(UV)
	$(call compile,tests,--extra export --extra dev --extra plugin-tests requirements/tests.in --upgrade)
	$(call compile,dev,--extra export --extra dev --constraints requirements/tests.txt)
	$(call compile,cpu,--extra export --extra cpu --constraints requirements/tests.txt)
	$(UV_COMPILE) --no-deps requirements/apart.in --output-file requirements/apart.txt --upgrade
	$(UV_COMPILE) requirements/docs.in --output-file requirements/docs.txt --upgrade
	$(UV_COMPILE) requirements/uv.in --output-file requirements/uv.txt --upgrade

UV_COMPILE = $(UV) pip compile --universal --python-version 3.10 --generate-hashes --annotation-style line \
	--custom-compile-command "make lock" --quiet

define compile
$(UV_COMPILE) pyproject.toml requirements/torch.in --excludes requirements/exclude.in --output-file requirements/$(1).txt $(2)
endef

# pip installs uv, uv all that is locked: in a quarter of the time.
$(UV): requirements/uv.txt
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r $<
	touch $@

clean:
	rm -rf $(VENV) build
