#!/usr/bin/env bash
# Runs the tests, in one of these sizes:
#
#   tests/run.sh           how the whole product behaves: unit, property and integration tests, those
#                          of object stores on real servers, those of GPUs on the stand-in for the
#                          driver, doc tests, the C library, and the Python package
#   tests/run.sh --quick   the unit tests, and the integration tests that need no server, network or
#                          GPU
#   tests/run.sh --full    everything that is checked before a merge: also the benchmarks' tests, the
#                          examples, AddressSanitizer and Miri, Run:ai's own tests on the C library,
#                          the linters of Python, vLLM, the report page of perf/ in Chromium,
#                          licences of dependencies, the minimum version of Rust, and the packages
#                          of a release
#   tests/run.sh --long    the full size with the long campaigns of random loads and random headers
#
# Needs Rust, a C and C++ compiler, and Python; missing compilers and Python are installed if that is
# possible, and real servers by tests/servers.sh. cargo-nextest is used where it is installed.
#
# The cargo tests run last, so that the last lines are their results and the times of all steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=${CARGO_TARGET_DIR:-target}
source tests/support/steps.sh
source tests/support/tools.sh
source tests/support/checkers.sh

# The integration tests that need neither servers nor long, one word for each file of tests/integration.
quick_modules=(bad_input casts cli kernels layers public_api refusals round_trip)

# What is built and tested: the product, or all of the workspace.
product=(-p ringload -p ringload-capi -p ringload-python -p cuda-stand-in --features capi)
workspace=(--workspace --features capi)

# Runs cargo's tests that the arguments select.
cargo_tests() {
    if cargo nextest --version &>/dev/null; then
        cargo nextest run ${RINGLOAD_TEST_LONG:+--profile long} "$@"
    else
        cargo test --no-fail-fast "$@"
    fi
}

test_quickly() {
    compile "${product[@]}" --lib --bins --test integration
    step "unit tests" cargo_tests "${product[@]}" --lib --bins
    step "integration tests" \
        cargo_tests "${product[@]}" --test integration -- "${quick_modules[@]/%/::}"
}

# Compiles everything at once, so that nothing is compiled a second time with other features. The
# tests and the wheel take the libraries from this build.
compile() {
    export RINGLOAD_TEST_BUILD="$*"
    step "compile" cargo build "$@"
}

begin_installing() {
    step "tools" install_tools
    begin servers tests/servers.sh
    begin python tests/python.sh --install
}

finish_installing() {
    step "the rest of the installation of servers" finish servers
    step "the rest of the installation of Python packages" finish python
    # Makes tests fail whose server is missing.
    export RINGLOAD_TEST_SERVERS=require
}

test_product() {
    begin_installing
    compile "${product[@]}" --lib --bins --tests
    finish_installing
    step "Python package" tests/python.sh
    step "doc tests" cargo test "${product[@]}" --doc
    step "unit, property and integration tests" cargo_tests "${product[@]}" --lib --bins --tests
}

# The crates for candle 0.10 and burn are workspaces of their own.
test_candle_0_10() {
    cargo test --manifest-path src/glue/candle-0.10/Cargo.toml --target-dir "$target_dir/glue"
    tests/mistral.sh
}

test_everything() {
    export RINGLOAD_TEST_FULL=1
    begin_installing
    compile "${workspace[@]}" --lib --bins --tests --examples
    finish_installing
    step "features of the crate, each by itself" check_features
    step "programs that embed the library and select a version of cudarc" check_embedding
    step "the example for candle with GPUs" check_candle
    step "kernels: is their PTX current?" check_kernels
    [[ -z ${RINGLOAD_TEST_LONG-} ]] || step "random headers and indexes" tests/fuzz.sh
    step "AddressSanitizer" test_under_address_sanitizer
    step "Miri" test_under_miri
    step "Python package" tests/python.sh
    step "Run:ai's own tests on the C library" \
        tests/runai.py "$target_dir/python/venv/bin/python" "$target_dir/debug/libringload.so"
    step "the report page of perf/ in Chromium" check_report_page
    step "licences and versions of dependencies" release/deny.sh
    step "minimum version of Rust" release/msrv.sh
    step "packages of a release" make_release_packages
    step "candle 0.10, and the patch of mistral.rs" test_candle_0_10
    step "burn" cargo test --manifest-path src/glue/burn/Cargo.toml --target-dir "$target_dir/burn"
    step "doc tests" cargo test "${workspace[@]}" --doc
    step "unit, property and integration tests" \
        cargo_tests "${workspace[@]}" --lib --bins --tests --examples
}

size=test_product
for argument; do
    case $argument in
        --quick) size=test_quickly ;;
        --full) size=test_everything ;;
        --long)
            size=test_everything
            export RINGLOAD_TEST_LONG=1
            ;;
        *) end_with_usage tests/run.sh "$argument" ;;
    esac
done
"$size"
