# Checks of tests/run.sh beside the tests as such: AddressSanitizer, Miri, the kernels' PTX, and the
# report page of perf/.
# tests/run.sh sources this file and sets `target_dir`.

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
    check_that_address_sanitizer_reports
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
    echo "AddressSanitizer reports errors"
}

test_under_miri() {
    if ! have_miri; then
        echo "skipped: Miri is not installed (rustup toolchain install nightly --component miri,rust-src)"
        return
    fi
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
    kernels/build.py --check
}

# Opens the report page in headless Chromium. That it is the page of its records is a test of perf/.
check_report_page() {
    tests/report_page.py --install perf/results/*.html
}

# Makes the packages and uses them as a user without Rust would.
make_release_packages() {
    command -v pkg-config >/dev/null || install_packages pkg-config
    release/build.sh
}
