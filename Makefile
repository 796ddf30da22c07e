# Each gate is one name, the same at home and in CI. Presumed are a Rust toolchain, CPython 3.11 or
# newer with pip, make and a C compiler; all else is fetched into the virtual environment and target/.
#
#     make build                                         the package in .venv
#     PYTHON=python3.12 VENV=.venv312 make build         another interpreter beside it
#     make test                                          all that CI runs
#
# A gate that ran nothing fails.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
# Processes for the Python tests, which wait much of their time; with 0, pytest's own runs them.
TEST_JOBS ?= 3
# Where one of those is killed, as one with a deadlock is, xdist 3.8 would wait for its successor for ever.
XDIST := --dist loadfile --max-worker-restart 0
# Test programs in Rust that run at the same time, for the same reason.
TEST_PROGRAMS ?= 2
# In the order of CI: what fails soonest comes first.
GATES := fmt lint docs deny test-rust loom build stubs test-python cpython demo examples

override VENV := $(abspath $(VENV))
PY := $(VENV)/bin/python
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOLS := $(VENV)/.tools
PACKAGE := $(VENV)/.package
CARGO_DENY := target/tools/bin/cargo-deny
CARGO_FUZZ := target/tools/bin/cargo-fuzz
PYTHON_CODE := python tests benches examples .ci
SOURCES := Cargo.toml Cargo.lock pyproject.toml requirements-dev.txt \
	$(shell find crates/procession crates/procession-macros crates/procession-python \( -name '*.rs' -o -name Cargo.toml \) \
		-not -path '*/tests/*' -not -path '*/benches/*' -not -path '*/examples/*')

# PyO3 builds for this interpreter, also where cargo is called without maturin.
export PYO3_PYTHON := $(PY)
export CARGO_TERM_COLOR ?= never
# Where it is set Python writes each line in two pieces, and lines of several processes get mixed.
unexport PYTHONUNBUFFERED

# Passes its input on, and fails if cargo's test programs ran no test, one of `tests/` by itself included.
COUNT_TESTS := awk '{ print; fflush() } \
	/^ *Running / || /^ *Doc-tests/ { file = $$2 ~ /^tests\// ? $$2 : "" } \
	/^test result:/ { n += $$4; if (file && $$4 + $$6 + $$8 == 0) none = none " " file } \
	END { if (!n || none) { print "no test ran" (none ? " in" none : ""); exit 1 } print n " tests passed" }'

.PHONY: FORCE help $(GATES) test cpython cpython-all format msrv fuzz bench bench-quick soak clean

help:
	@echo "Gates, in the order in which 'make test' runs them: $(GATES)"
	@echo "Others: test cpython cpython-all format msrv fuzz bench bench-quick soak clean"

# The virtual environment, the tools in it, the package in it. Each stamp lies inside, so that
# removing the folder removes them too.

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CPython 3.11 or newer is needed; PYTHON= names one")'
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(TOOLS): requirements-dev.txt $(VENV)/.created
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

# Built again as well if the extension has been removed from where it was put.
$(PACKAGE): $(TOOLS) $(SOURCES) $(if $(wildcard python/procession/_procession*.so),,FORCE)
	VIRTUAL_ENV=$(VENV) $(PY) -m maturin develop --release --locked
	touch $@

# Byte-compiled also where the environment forbids programs to do so: children import it each time.
build: $(PACKAGE)
	$(PY) -m compileall -q python
	$(PY) -c 'import procession; print("procession, from", procession.__file__)'

# Checks of the text.

fmt: $(TOOLS)
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path benches/peers/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(PY) -m ruff format --check $(PYTHON_CODE)

format: $(TOOLS)
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path benches/peers/Cargo.toml
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	$(PY) -m ruff format $(PYTHON_CODE)
	$(PY) -m ruff check --fix $(PYTHON_CODE)

lint: $(TOOLS)
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(PY) -m ruff check $(PYTHON_CODE)

docs: $(TOOLS)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --all-features

# Advisories are left out: their database is a git repository on the network (see deny.toml).
deny: $(CARGO_DENY)
	$(CARGO) metadata --locked --format-version 1 >/dev/null
	$(CARGO_DENY) check bans licenses sources

# Unoptimized: it compiles in a third of the time, and the tool runs for a second.
$(CARGO_DENY):
	$(CARGO) install cargo-deny --version $(CARGO_DENY_VERSION) --locked --debug \
		--config profile.dev.debug=false --root target/tools --target-dir target/tools/build
	rm -rf target/tools/build

# The oldest compiler that Cargo.toml promises. Not in CI, where clippy's `incompatible_msrv`
# looks at the same promise without fetching a toolchain.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv:
	rustup toolchain install $(MSRV) --profile minimal --no-self-update
	rustup run $(MSRV) cargo check --locked -p procession -p procession-macros -p procession-testing --all-targets --target-dir target/msrv

# Tests.

test-rust:
	$(PYTHON) .ci/run_tests.py $(TEST_PROGRAMS) --locked --all-features \
		-p procession -p procession-macros -p procession-testing 2>&1 | $(COUNT_TESTS)

# Under the model checker. `--cfg loom` changes every crate's build, hence a folder of its own. Only the
# checker is optimized: to optimize the rest takes a minute, and saves the models a second.
OPTIMIZED_LOOM := --config profile.dev.package.loom.opt-level=2 --config profile.dev.package.generator.opt-level=2
loom:
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 $(CARGO) test --locked -p procession --lib $(OPTIMIZED_LOOM) \
		--target-dir target/loom loom 2>&1 | $(COUNT_TESTS)

# Exit status 5, "no tests collected", is a failure like any other. A module stays in one process,
# which counts what it leaves behind.
test-python: $(PACKAGE)
	$(PY) -m pytest -m "not soak" -n $(TEST_JOBS) $(XDIST)

# CPython's own tests of multiprocessing, on the package: tests/cpython/README.md.
cpython: $(PACKAGE)
	$(PY) tests/cpython/run.py

# The same for every CPython from 3.11 on that is found, each in a virtual environment of its own.
cpython-all:
	$(PYTHON) tests/cpython/every.py

stubs: $(PACKAGE)
	MYPYPATH=python $(PY) -m mypy.stubtest procession._procession --allowlist tests/stubtest-allow.txt

# With the extension among the packages its features hold, so that its build of the engine is used again.
BUILD_EXAMPLES = $(CARGO) build --locked --release -p procession -p procession-python

WORDCOUNT := $(TARGET)/release/examples/wordcount
DEMO_ROUNDS ?= 1
demo: $(PACKAGE)
	$(BUILD_EXAMPLES) --example wordcount
	$(PY) examples/demo.py --rust $(WORDCOUNT) --rounds $(DEMO_ROUNDS)

examples: $(PACKAGE)
	$(BUILD_EXAMPLES) --examples
	$(PY) examples/run.py --rust $(TARGET)/release/examples

test:
	@.ci/gates $(GATES)

# By hand: measurements and long runs.

# What is compared with is fetched and built here and for no gate. Whatever cannot be, or cannot be
# measured, fails.
bench: BENCH = PROCESSION_BENCH_OUT=$(TARGET)/bench
bench-quick: BENCH = PROCESSION_BENCH_OUT=$(TARGET)/bench PROCESSION_BENCH_QUICK=1
bench-quick: QUICK = --quick
bench bench-quick: build
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement benches/requirements.txt
	$(CARGO) build --locked --release --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers
	$(BENCH) $(CARGO) bench --locked -p procession --bench '*'
	$(BENCH) $(TARGET)/peers/release/procession-peers
	$(PY) benches/compare.py $(QUICK) --out $(TARGET)/bench

# Each target for so many seconds, with a nightly compiler. What it finds lies in target/fuzz; the
# corpus, which test-rust runs, grows only by hand.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: $(CARGO_FUZZ)
	for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/$$target/corpus; \
		PATH="$(dir $(abspath $(CARGO_FUZZ))):$$PATH" $(CARGO) +nightly fuzz run --target-dir target/fuzz/build \
			$$target target/fuzz/$$target/corpus fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=target/fuzz/$$target/; \
	done

$(CARGO_FUZZ):
	$(CARGO) install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --locked --debug \
		--config profile.dev.debug=false --root target/tools --target-dir target/tools/build
	rm -rf target/tools/build

soak: $(PACKAGE)
	PROCESSION_TEST_TIMEOUT=3600 $(CARGO) test --locked --release -p procession -- --include-ignored 2>&1 | $(COUNT_TESTS)
	$(PY) -m pytest -m soak -o faulthandler_timeout=3600

clean:
	rm -rf target $(VENV)
	find python -name '*.so' -delete
