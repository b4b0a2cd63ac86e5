# Every task creates the environment it needs: Python 3.11+ with pip and venv, gcc and make are enough.
# Another interpreter beside it: make test VENV=.venv-3.12 PYTHON=python3.12

PYTHON ?= python3
FUZZ_SECONDS ?= 60
MINUTES ?= 10
# Parallel test processes, and further arguments of pytest: make test ARGS='-k keys'
# One more than cores: a quarter of the time a test waits, for programs, servers and the disk.
TEST_WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 1) + 1)
ARGS ?=

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Both Pillows fill a folder `PIL`: Pillow-SIMD gets a place of its own, which comes first on the path when it is to run.
SIMD_VERSION := 12.1.1.post0
SIMD := $(VENV)/pillow-simd-$(SIMD_VERSION)
SIMD_TRIED := $(SIMD)/.tried
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
PYTEST := $(BIN)/python -m pytest
# Each process begins with a piece of the tests, so that most datasets are made once, and takes others' when it is done.
SHARED_OUT = -n $(TEST_WORKERS) --dist worksteal
# As seen from any folder: the path of the repository may hold spaces, which make itself can't handle.
SIMD_PATH = $$(cd "$(SIMD)" && pwd)
BIN_PATH = $$(cd "$(BIN)" && pwd)
# What was on the path stays there, behind it.
WITH_SIMD = PYTHONPATH="$(SIMD_PATH)$${PYTHONPATH:+:$$PYTHONPATH}"
STAGES = OMP_NUM_THREADS=1 $(PYTEST) benchmarks --benchmark-only --benchmark-sort=name --benchmark-columns=median,stddev $(ARGS)
SITE_PACKAGES = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
WHICH_PILLOW = $(BIN)/python -c 'import PIL; print(f"PIL is now {PIL.__version__}: {PIL.__path__[0]}")'
# Tests that use Pillow themselves run with both: Pillow-SIMD, and the Pillow that most people have.
PILLOW_TESTS = $(filter-out $(ONLY_WRITTEN:%=tests/%.py), \
    $(shell grep -rlE --include='test_*.py' '^ *(import|from) (PIL|support.pictures)' tests))
# In these Pillow only writes pictures that others decode, or is asked for the size of one.
ONLY_WRITTEN := auditing/test_bias_and_slices auditing/test_facts auditing/test_whole_audit backends/dali/test_dali_faults \
    backends/dali/test_dali_graphs benchmarks/test_benchmarks benchmarks/test_gpu_command cli/test_dataset_commands \
    dataset/test_torch_dataset docs/test_pipelines inference/test_evaluate inference/test_export_model inference/test_predict \
    loader/test_loader_arguments measure/test_bench_peers measure/test_doctor_measured models/test_lite0 models/test_weights \
    native/test_own_decoder shards/test_append shards/test_compact shards/test_verify sources/test_arrow_source sources/test_cifar \
    sources/test_parquet_source training/test_run_figures training/test_train web/test_static_site

# mkdocs counts warnings only where it may print them: --strict --quiet would pass with broken links.
# A notice of the theme's makers at every build; nothing to do with these pages.
export NO_MKDOCS_2_WARNING := 1

# Tests start hundreds of programs, of which each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fast explore check format bench bench-full bench-peers gpu gate wheel sanitize fuzz reference screenshots docs pillow-simd pillow clean

help: ## show the tasks
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.* ## /\1\t/' | expand -t 14

demo: $(READY) ## photographs into shards, epochs beside torchvision, a trained network
	@$(BIN)/python docs/demo.py $(ARGS)

test: $(READY) $(SIMD_TRIED) ## run the tests, with Pillow-SIMD where it builds and with Pillow
	@if test -d $(SIMD)/PIL; then \
	    $(WITH_SIMD) $(PYTEST) $(SHARED_OUT) --durations=20 $(ARGS) && \
	    echo "Again with Pillow: the tests that use it" && \
	    IMGDATA_PILLOW=plain $(PYTEST) $(SHARED_OUT) -m "not slow" $(PILLOW_TESTS); \
	else \
	    $(PYTEST) $(SHARED_OUT) --durations=20 $(ARGS); \
	fi

# The rest trains networks, or starts the programs of others and ours in processes of their own.
NOT_FAST := plugins docs benchmarks backends/dali training inference measure
test-fast: $(READY) ## run the tests of sharding, reading and loading that are not marked slow: three minutes
	@$(PYTEST) $(SHARED_OUT) -m "not slow" --durations=20 $(NOT_FAST:%=--ignore=tests/%) $(ARGS)

explore: $(READY) ## run the tests of rules with new random examples for MINUTES (10), and keep those that fail
	@$(BIN)/python tests/fuzz/explore.py --minutes $(MINUTES) -n $(TEST_WORKERS) $(ARGS)

check: $(READY) ## format, lint, types, layers, cost of the decoder, documentation
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m benchmarks.gate
	@$(BIN)/python docs/reference.py --check
	@said=$$($(BIN)/mkdocs build --strict 2>&1) || { echo "$$said"; exit 1; }
	@echo "check: all passed"

format: $(READY) ## format the code and fix what ruff can fix
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: $(READY) $(SIMD_TRIED) ## run the benchmarks in 5 minutes, each beside its peers; figures lie in build/bench
	@mkdir -p build/bench
	@$(STAGES) --images 256 --rounds 2 --benchmark-json=build/bench/stages.json > build/bench/stages.log || { cat build/bench/stages.log; exit 1; }
	@$(BIN)/python -m benchmarks.compare build/bench/stages.json
	@$(BIN)/python -m benchmarks.shard_speed --images 1000 --rounds 1 --group copy
	@$(BIN)/python -m benchmarks.loaders --images 512 --rounds 1 --batch 64 --dtype uint8
	@$(BIN)/python -m benchmarks.resident --rounds 1 --dtype float32

bench-full: $(READY) $(SIMD_TRIED) ## record all benchmarks for the documentation: an hour on a quiet machine
	@$(STAGES) --images 2048 --rounds 5 --benchmark-json=benchmarks/results/stages.json
	@$(WITH_SIMD) $(BIN)/python -m benchmarks.shard_speed --images 12000 --rounds 3 --save
	@$(BIN)/python -m benchmarks.loaders --images 2000 --rounds 3 --threads 1 --threads 2 --save
	@$(BIN)/python -m benchmarks.resident --rounds 3 --save
	@$(BIN)/python -m benchmarks.remote --save
	@$(BIN)/python -m benchmarks.dali_overhead --rounds 5 --save
	@$(BIN)/python -m benchmarks.crop_ready --save
	@$(BIN)/python -m benchmarks.scale
	@$(BIN)/python -m benchmarks.growth --save
	@$(BIN)/python -m benchmarks.plots
	@$(BIN)/python -m benchmarks.targets

# With PYTHON given, that interpreter and the packages that it has: a machine lent for minutes may reach no registry.
ifeq ($(origin PYTHON),file)
GPU_PYTHON := $(BIN)/python
gpu: $(READY)
else
GPU_PYTHON := $(PYTHON)
gpu: compiled-for-gpu
endif
.PHONY: compiled-for-gpu
compiled-for-gpu:
	@$(GPU_PYTHON) setup.py --quiet build_ext --inplace || echo "The extension was not built: Pillow decodes on the host"

gpu: ## test and measure all that needs a GPU, in eight minutes; PYTHON=python3: with the packages that it has
	@$(GPU_PYTHON) -m benchmarks.gpu $(ARGS)

gate: $(READY) ## compare what the decoder and the order cost with benchmarks/baseline.json
	@$(BIN)/python -m benchmarks.gate

# On Debian first: apt install g++ pkg-config libopencv-dev libturbojpeg0-dev (FFCV), libavdevice59 (SPDL).
wheel: .venv-wheel/.ready ## build wheels that need no compiler into dist/, and try the one for this machine; needs nasm
	@.venv-wheel/bin/python wheels/build.py $(ARGS)

.venv-wheel/.ready: wheels/requirements.txt
	@test -x .venv-wheel/bin/python || $(PYTHON) -m venv .venv-wheel
	@.venv-wheel/bin/python -m pip --disable-pip-version-check --quiet --quiet install --requirement $<
	@touch $@

bench-peers: .venv-peers/.ready ## install other writers and loaders, which the benchmarks then run as well (9 GB)

.venv-peers/.ready: benchmarks/peers.txt benchmarks/peers-constraints.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --quiet install --requirement $< --constraint benchmarks/peers-constraints.txt
	@.venv-peers/bin/python -m pip --disable-pip-version-check --quiet install --no-build-isolation --no-deps ffcv==1.0.2 \
	    > .venv-peers/ffcv.log 2>&1 || echo "FFCV does not build here (Debian: pkg-config libopencv-dev libturbojpeg0-dev)"
	@touch $@

# The compiled part once more, with the sanitizers of gcc, beside a copy of the rest.
SANITIZED := build/sanitize
sanitize: $(READY) ## run the tests of the compiled part under AddressSanitizer and UndefinedBehaviorSanitizer
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -r imgdata cli tests benchmarks pyproject.toml setup.py $(SANITIZED) && rm -f $(SANITIZED)/imgdata/native/*.so
	@bin=$(BIN_PATH) && cd $(SANITIZED) && CFLAGS="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	    "$$bin/python" setup.py --quiet build_ext --inplace
	@bin=$(BIN_PATH) && cd $(SANITIZED) && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 "$$bin/python" -m pytest $(SHARED_OUT) -m "not slow" tests/native tests/shards/test_copying.py $(ARGS)

fuzz: $(READY) ## feed damaged files to the compiled part for FUZZ_SECONDS (60); needs clang
	@$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

reference: $(READY) ## write the generated parts of the pages anew: commands, Python, recorded figures
	@$(BIN)/python docs/reference.py

screenshots: $(READY) ## take docs/images/view-*.png anew: each page of the viewer, light, dark and on a phone
	@$(BIN)/python docs/screenshots.py $(ARGS)

docs: $(READY) ## build the documentation into site/
	@said=$$($(BIN)/mkdocs build --strict 2>&1) || { echo "$$said"; exit 1; }
	@echo "Documentation: site/index.html"

pillow-simd: $(READY) $(SIMD_TRIED) ## let Pillow-SIMD run instead of Pillow in .venv
	@test -d $(SIMD)/PIL || { cat $(SIMD_TRIED); exit 1; }
	@printf 'import os, sys; os.environ.get("IMGDATA_PILLOW") == "plain" or sys.path.insert(0, "%s")\n' \
	    "$(SIMD_PATH)" > "$(SITE_PACKAGES)/pillow-simd.pth"
	@$(WHICH_PILLOW)

pillow: $(READY) ## let Pillow run again
	@rm -f "$(SITE_PACKAGES)/pillow-simd.pth"
	@$(WHICH_PILLOW)

clean: ## remove the environment and everything that was built
	@rm -rf $(VENV) .venv-peers .venv-wheel *.egg-info .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
	    build demo dist site imgdata/native/*.so
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt setup.py $(wildcard imgdata/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit("imgdata needs Python 3.11 or later: make PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	@echo "Installing the environment into $(VENV): 7.5 GB, a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt setuptools
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# A failed build is remembered, with its reason; `make clean` forgets it.
$(SIMD_TRIED): | $(READY)
	@echo "Building Pillow-SIMD $(SIMD_VERSION): half a minute, once"
	@rm -rf $(SIMD) && mkdir -p $(SIMD)
	@$(PIP) install --no-deps --target $(SIMD) pillow-simd==$(SIMD_VERSION) > $(SIMD)/build.log 2>&1 \
	    && PYTHONPATH="$(SIMD_PATH)" $(BIN)/python -c 'from PIL import _imaging' >> $(SIMD)/build.log 2>&1 \
	    || rm -rf $(SIMD)/PIL
	@if test -d $(SIMD)/PIL; then echo "Pillow-SIMD $(SIMD_VERSION) built"; \
	    else echo "Pillow-SIMD does not build here (it needs gcc and the headers of libjpeg and zlib), Pillow runs: $(SIMD)/build.log"; \
	    fi | tee $@
