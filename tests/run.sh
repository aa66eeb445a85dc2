#!/usr/bin/env bash
# Runs every test of the project; needs Rust, a C and C++ compiler and Python (what is missing it
# installs where it can) and real servers, which tests/servers.sh installs.
#
#   tests/run.sh          unit, property and integration tests, doc tests, the library without the
#                         command, the kernels' PTX, the unsafe parts under AddressSanitizer and
#                         Miri, the Python package (tests/python.sh), and Run:ai's own unit tests on
#                         the C library (tests/runai.py)
#   tests/run.sh --long   the same with the long campaigns
#
# The whole suite comes last, so that the last lines are cargo's test results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=${CARGO_TARGET_DIR:-target}

usage() {
    sed -n '2,/^set / s/^# \{0,1\}//p' tests/run.sh
}

step() {
    printf '\n== %s\n' "$*"
}

# What the build needs beside Rust: aws-lc-rs compiles C and assembly with the C compiler, and the
# stand-in for the CUDA driver the kernels with the C++ compiler.
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
            echo "error: please install $* (this is not root, and there is no sudo)" >&2
            exit 1
        fi
    fi
    step "installing $*"
    "${as_root[@]}" apt-get update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "$@"
}

# Real servers for the tests of remote locations; from here on their tests must run.
install_servers() {
    step "test servers"
    tests/servers.sh
    export RINGLOAD_TEST_SERVERS=require
}

# Users of the library build it without the command's dependencies. (What it does then is what it
# does with them: its tests run once, with all.)
check_library_alone() {
    step "the library without the command"
    cargo check --no-default-features --lib
}

# Runs the tests of `ring` with the given command; that there are none is an error, not a success.
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
    step "AddressSanitizer: does the alarm ring?"
    check_that_address_sanitizer_rings
    step "AddressSanitizer: the unsafe parts"
    # --target keeps the sanitizer away from build scripts and macros.
    test_ring with_address_sanitizer cargo test \
        --target x86_64-unknown-linux-gnu --target-dir "$target_dir/asan"
}

# A sanitizer that reports nothing checks nothing: it has to find this use after free.
check_that_address_sanitizer_rings() {
    local dir="$target_dir/asan-alarm"
    mkdir -p "$dir"
    cat >"$dir/alarm.rs" <<'RUST'
fn main() {
    let freed = Box::into_raw(Box::new(7_u8));
    drop(unsafe { Box::from_raw(freed) });
    println!("{}", unsafe { freed.read_volatile() });
}
RUST
    RUSTC_BOOTSTRAP=1 rustc --edition 2024 -Zsanitizer=address -o "$dir/alarm" "$dir/alarm.rs"
    if "$dir/alarm" >"$dir/report" 2>&1 || ! grep -q heap-use-after-free "$dir/report"; then
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

# Miri is of use only with the sources of the standard library, from which it builds its own.
have_miri() {
    cargo +nightly miri --version &>/dev/null || return 1
    [[ -d $(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library ]]
}

# The PTX that is kept is that of the kernels as they are, and assembles without spilling.
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
