# Each target makes the virtual environment it needs. PYTHON chooses the interpreter for it; ARGS goes
# to the command, as in `make bench ARGS="--imgsz 1024 --append"`.
PYTHON ?= python3
BIN := .venv/bin
# The original SAM 2, to compare with: with its dependencies, a second torch. And supervision, to be
# read by: with them, a second OpenCV.
ALONE := sam2==1.1.0 iopath portalocker supervision pydeprecate defusedxml

# Who reads our exports. They bring other versions of what we use: apart, for tests that ask them.
FORMATS := datumaro==1.13.* label-studio-sdk==2.1.* supervision>=0.27 datasets>=4

# Two processes share the tests, a file each; tests of a file share what they made.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-all test-large lint bench clean

demo: .venv/.demo  ## segment real photos with the built-in model; look at demo/*.png
	$(BIN)/python -m pipelines.demo --out demo

test: .venv/.dev  ## the test suite, without network and GPU: minutes
	$(PYTEST)

test-all: .venv/.dev .venv-formats/.done  ## also what takes long, and exports as others' libraries read them
	$(PYTEST) -m 'not gpu and not large'

test-large: .venv/.dev  ## tests of published sizes and large images: up to 16 GB
	$(BIN)/python -m pytest -m large

lint: .venv/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: .venv/.bench  ## time, memory and masks beside the other generators; where our time goes
	$(BIN)/python -m benchmarks.speed $(ARGS)

.venv/.demo: pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/.bench: pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ .venv/.demo

.venv/.dev: pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' 'setuptools>=77' wheel
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(ALONE)
	touch $@ .venv/.demo .venv/.bench

.venv-formats/.done: Makefile
	$(PYTHON) -m venv .venv-formats
	.venv-formats/bin/python -m pip install --quiet $(foreach name,$(FORMATS),'$(name)')
	touch $@

clean:
	rm -rf .venv .venv-formats demo
