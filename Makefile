# `make demo` and `make test` need python3 (3.11 or newer) and nothing else; both build .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
# A test a core, eight at most; so BLAS has one thread. Benchmarks cannot be timed then, and their plugin would warn.
TESTS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -p no:benchmark

.PHONY: demo test test-slow reliability test-napari lint bench bench-gpu clean

.venv/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[plot]'
	touch $@

.venv/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@ .venv/.demo

demo: .venv/.demo
	$(BIN)/gmrm-gpu demo --out demo --overwrite

test: .venv/.test
	$(TESTS)

# every instance of every kernel for every architecture, some minutes
test-slow: .venv/.test
	$(TESTS) -m slow

# damaged movies and disks, kills, hostile files, degenerate fits, clusters: the quick part is in `make test`, this is the
# long one; less than 20 minutes on two cores
reliability: .venv/.test
	GMRM_GPU_LONG=1 $(TESTS) tests/reliability

# the panel in napari, with Qt but no screen; in an environment of its own, as napari's pytest plugin warns where warnings
# are errors
test-napari:
	test -x .venv-napari/bin/python || $(PYTHON) -m venv .venv-napari
	.venv-napari/bin/python -m pip install -q -e '.[napari]' 'napari[pyside6]' pytest pytest-qt
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QT_QPA_PLATFORM=offscreen .venv-napari/bin/python -m pytest --disable-warnings tests/test_napari.py

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror gmrm_gpu/engines/kernels/* tests/host/*.h tests/host/*.cpp
	$(BIN)/hadolint docker/Dockerfile

bench: .venv/.test
	$(BIN)/python -m pytest benchmarks/bench_*.py --benchmark-only

# on an NVIDIA GPU, with CuPy installed into .venv: pip install -e '.[cuda13]'
bench-gpu: .venv/.test
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf .venv .venv-napari demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache
