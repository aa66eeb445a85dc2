#!/usr/bin/env bash
# Runs every test of the project. Needs Rust, a C and C++ compiler, and Python; it installs missing
# compilers and Python if it can, and real servers with tests/servers.sh.
#
#   tests/run.sh          unit, property and integration tests, doc tests, the library without the
#                         command, the kernels' PTX, the unsafe parts under AddressSanitizer and
#                         Miri, the Python package (tests/python.sh), and Run:ai's own unit tests on
#                         the C library (tests/runai.py)
#   tests/run.sh --long   the same with the long campaigns
#
# The cargo tests run last, so that the last lines are their results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=${CARGO_TARGET_DIR:-target}

usage() {
    sed -n '2,/^set / s/^# \{0,1\}//p' tests/run.sh
}

step() {
    printf '\n== %s\n' "$*"
}

# The build needs a C compiler for aws-lc-rs, which compiles C and assembly, and a C++ compiler for
# the stand-in for the CUDA driver, which compiles the kernels.
check_tools() {
    if ! command -v cargo >/dev/null; then
        echo "error: cargo is not on the PATH; install Rust from https://rustup.rs" >&2
        exit 1
    fi
    command -v cc >/dev/null || install_package gcc libc6-dev
    command -v c++ >/dev/null || install_package g++
    command -v python3 >/dev/null || install_package python3-venv
}

install_package() {
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        as_root=(sudo -n)
        if ! command -v sudo >/dev/null; then
            echo "error: please install $* (this user is not root, and sudo is not installed)" >&2
            exit 1
        fi
    fi
    step "installing $*"
    "${as_root[@]}" apt-get update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "$@"
}

# Installs real servers for the tests of remote locations. With the variable these tests fail if a
# server is missing.
install_servers() {
    step "test servers"
    tests/servers.sh
    export RINGLOAD_TEST_SERVERS=require
}

# Checks that the library compiles without the command's dependencies, as its users build it. Its
# behaviour does not depend on them, so its tests run only once, with all features.
check_library_alone() {
    step "the library without the command"
    cargo check --no-default-features --lib
}

# Runs the tests of `ring` with the given command, and fails if there are none.
test_ring() {
    local only=(--no-default-features --lib ring::)
    if [[ $("$@" "${only[@]}" -- --list) != *": test"* ]]; then
        echo "error: no test is named ring::..." >&2
        exit 1
    fi
    "$@" "${only[@]}"
}

with_address_sanitizer() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address "$@"
}

test_under_address_sanitizer() {
    if [[ $(rustc --version --verbose) != *"host: x86_64-unknown-linux-gnu"* ]]; then
        echo "skipped: AddressSanitizer runs on x86_64-unknown-linux-gnu only"
        return
    fi
    step "AddressSanitizer: does it report errors?"
    check_that_address_sanitizer_reports
    step "AddressSanitizer: the unsafe parts"
    # With --target, build scripts and macros are compiled without the sanitizer.
    test_ring with_address_sanitizer cargo test \
        --target x86_64-unknown-linux-gnu --target-dir "$target_dir/asan"
}

# Checks that AddressSanitizer is active: it has to report this use after free.
check_that_address_sanitizer_reports() {
    local dir="$target_dir/asan-check"
    mkdir -p "$dir"
    cat >"$dir/check.rs" <<'RUST'
fn main() {
    let freed = Box::into_raw(Box::new(7_u8));
    drop(unsafe { Box::from_raw(freed) });
    println!("{}", unsafe { freed.read_volatile() });
}
RUST
    RUSTC_BOOTSTRAP=1 rustc --edition 2024 -Zsanitizer=address -o "$dir/check" "$dir/check.rs"
    if "$dir/check" >"$dir/report" 2>&1 || ! grep -q heap-use-after-free "$dir/report"; then
        echo "error: AddressSanitizer did not report a use after free" >&2
        exit 1
    fi
    echo "yes"
}

test_under_miri() {
    if ! have_miri; then
        echo "skipped: Miri is not installed (rustup toolchain install nightly --component miri,rust-src)"
        return
    fi
    step "Miri: the unsafe parts"
    MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" test_ring cargo +nightly miri test
}

# Miri needs the sources of the standard library, which it compiles itself.
have_miri() {
    cargo +nightly miri --version &>/dev/null || return 1
    [[ -d $(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library ]]
}

# Checks that the PTX files were built from the current kernels and assemble without spilling.
check_kernels() {
    if [[ $(uname -sm) != "Linux x86_64" ]]; then
        echo "skipped: the kernels' compiler is installed on x86-64 Linux only"
        return
    fi
    step "kernels: is their PTX current?"
    kernels/build.py --check
}

test_runai_on_the_c_library() {
    step "Run:ai's own tests on the C library"
    cargo build --features capi --lib
    tests/runai.py "$target_dir/python/venv/bin/python" "$target_dir/debug/libringload.so"
}

test_all() {
    step "doc tests"
    cargo test --workspace --features capi --doc
    step "unit, property and integration tests"
    cargo test --workspace --features capi --lib --bins --tests --examples --no-fail-fast
}

case ${1-} in
    "") ;;
    --long) export RINGLOAD_TEST_LONG=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac

check_tools
install_servers
check_kernels
check_library_alone
test_under_address_sanitizer
test_under_miri
tests/python.sh
test_runai_on_the_c_library
test_all
