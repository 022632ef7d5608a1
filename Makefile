# make chat    everything up to a running chat; needs Python 3.11 or newer and a package index, nothing else
# make check   what continuous integration runs; make coverage: its tests once more, and which lines they reach
# make wheels  wheels with compiled kernels, for all ports; needs GNU ld for Arm (Debian: binutils-aarch64-linux-gnu)
# make arm     the same life on an emulated Raspberry Pi 4 and here; needs qemu-user and what make wheels needs
# PYTHON=...     the interpreter for .venv     ARGS=...        options for chat, test and bench
# LEVELS=...     of ports/levels.toml, those that the wheel of make arm has; without it all
# PIP_EXTRA=...  more packages or pip options to install with

PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q --no-input
SOURCES := edgelm tools tests
MEASURED := --durations=12
LIBRARY := build/kernels
FROM_LIBRARY = if test -d $(LIBRARY); then export EDGELM_KERNELS="$$PWD/$(LIBRARY)"; fi;
# The first two are of kernels that numba compiles, the others call some in float64; a library has none for that.
JITTED := tests/kernels/test_twins.py tests/kernels/test_panel.py tests/tools/test_chunked.py tests/tools/test_model.py
LOOPS := tests/kernels tests/cells tests/learn tests/matrices
ALL_ELSE := tests --ignore-glob "tests/kernels/test_[b-z]*" $(addprefix --ignore ,$(filter-out tests/kernels,$(LOOPS)))
WHEEL_ROOM := build/wheel-test
ARM_ROOM := build/arm

# Tests start some hundred processes, each of which would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: chat test check bench docs fix clean venv style types layers coverage library compiled jit plain onnx \
	wheel wheels arm arm-room
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

chat: $(VENV)/.chat
	@$(BIN)/edgelm chat $(ARGS)

bench: $(VENV)/.chat
	@$(BIN)/edgelm bench $(ARGS)

# One thread for each product: passes run side by side, and threads that wait for a core keep it from the others.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(ARGS)

# On two cores: a library of kernels, then kernels of it that answer, and the wheel; meanwhile kernels as plain Python, ONNX
# Runtime that answers, where there is one an Arm, and kernels compiled by numba.
check: style types layers
	@mkdir -p build; failed=0; $(MAKE) plain >build/plain.log 2>&1 & plain=$$!; \
		$(MAKE) library; \
		$(MAKE) compiled wheel >build/compiled.log 2>&1 & compiled=$$!; \
		wait $$plain || failed=1; cat build/plain.log; \
		{ $(MAKE) onnx && .ci/arm && $(MAKE) jit; } || failed=1; \
		wait $$compiled || failed=1; cat build/compiled.log; exit $$failed

docs: venv
	$(BIN)/python -m tools.docs

fix: venv
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .hypothesis .*_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

style: venv
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: venv
	$(BIN)/mypy

layers: venv
	$(BIN)/lint-imports --no-logo

# A tracer sees a kernel only as Python; what is too slow that way runs compiled. Each pass measures the rest, too. Tests
# take a fifth longer with it, so `check` does without.
coverage: MEASURED := --cov --cov-report= --cov-fail-under=0
coverage: plain library compiled onnx
	$(BIN)/coverage combine -q .coverage.compiled .coverage.plain .coverage.onnx
	$(BIN)/coverage report

# Without a linker there is none, and numba compiles.
library: venv
	rm -rf $(LIBRARY)
	-$(BIN)/python -m edgelm.kernels.compiler native $(LIBRARY)

compiled: venv
	$(FROM_LIBRARY) EDGELM_ENGINE=kernels COVERAGE_FILE=.coverage.compiled $(MAKE) test \
		ARGS='tests $(addprefix --ignore ,$(filter tests/tools/%,$(JITTED))) -m "not once" $(MEASURED)'

jit: venv
	EDGELM_KERNELS=jit EDGELM_ENGINE=kernels $(MAKE) test ARGS='$(JITTED) -m "not once" --durations=12'

plain: venv
	EDGELM_KERNELS=jit NUMBA_DISABLE_JIT=1 COVERAGE_FILE=.coverage.plain $(MAKE) test \
		ARGS='$(LOOPS) --ignore tests/kernels/test_aot.py -m "not jit_only" $(MEASURED)'

onnx: venv
	$(FROM_LIBRARY) EDGELM_ENGINE=onnx COVERAGE_FILE=.coverage.onnx $(MAKE) test \
		ARGS='$(ALL_ELSE) -m "not jit_only" $(MEASURED)'

# The wheel is built from the source distribution, and runs where the source tree is not.
wheel: venv
	rm -rf dist $(WHEEL_ROOM)
	$(BIN)/python -m build >/dev/null
	$(BIN)/python -m venv $(WHEEL_ROOM)
	$(WHEEL_ROOM)/bin/pip --disable-pip-version-check -q --no-input install dist/*.whl
	cd $(WHEEL_ROOM) && export EDGELM_HOME="$$PWD/home" && \
		bin/edgelm info --json >info.json && bin/python -m json.tool info.json && \
		reply=$$(echo Hello | bin/edgelm chat) && test -n "$$reply"
	rm -rf $(WHEEL_ROOM)

wheels: venv
	$(BIN)/python -m tools.build_wheel --all $(ARGS)

arm: arm-room
	$(BIN)/python -m tools.arm compare $(ARGS) --cpu cortex-a72 $(ARM_ROOM)

arm-room: venv
	$(BIN)/python -m tools.build_wheel --port rpi-4 $(addprefix --level ,$(LEVELS)) --out build/arm-wheel
	$(BIN)/python -m tools.arm make $(ARM_ROOM) build/arm-wheel/*.whl

venv: $(VENV)/.dev

# Set-up speaks on stderr and leaves stdin alone: both belong to the chat.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "edgelm: needs Python 3.11 or newer with venv (on Debian: apt install python3-venv);" \
		"or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "edgelm: making $(VENV) with $(PYTHON)" >&2
	@$(PYTHON) -m venv --clear $(VENV) </dev/null >&2

$(VENV)/.chat: setup.cfg pyproject.toml | $(BIN)/pip
	@echo "edgelm: installing what it needs into $(VENV); the first time takes a minute or two" >&2
	@$(PIP) install $(PIP_EXTRA) -e . </dev/null >&2
	@echo "edgelm: compiling its kernels, and measuring what answers faster here" >&2
	@$(BIN)/edgelm info --measure </dev/null >/dev/null
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/pip
	@echo "edgelm: installing what development needs into $(VENV)" >&2
	@$(PIP) install $(PIP_EXTRA) -e '.[dev]' </dev/null >&2
	@touch $(VENV)/.chat $@
