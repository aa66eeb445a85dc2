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

# Each feature by itself, without warnings, and the tests of builds with fewer features.
check_features() {
    local feature
    for feature in http cuda-12020 s3 gcs azure hub; do
        cargo clippy --lib --test features --no-default-features --features "$feature" -- -D warnings
        cargo test --test features --no-default-features --features "$feature"
    done
    cargo clippy --lib --tests --no-default-features -- -D warnings
    cargo test --lib --test features --no-default-features
    check_crate_count 45
    check_crate_count 118 --features s3
}

# Fails if the library has more crates than the first argument says, itself and the crates of build
# scripts and macros included. The other arguments select features.
check_crate_count() {
    local most=$1 found
    shift
    found=$(cargo tree --package ringload --no-default-features --edges normal,build --prefix none \
        --target x86_64-unknown-linux-gnu --locked "$@" | sed 's/ (.*//' | sort -u | wc -l)
    echo "crates with ${*:-no features}: $found, at most $most"
    ((found <= most))
}

# Runs a program that has ringload and cudarc on the stand-in for the driver, with each way to select
# the version of cudarc's bindings.
check_embedding() {
    local toolkit=$PWD/tests/support/cuda-toolkit
    run_embedding 12020 cuda-12020
    run_embedding 12080 cuda-12080
    run_embedding 13000 cuda-13000
    PATH=$toolkit/bin:$PATH STAND_IN_CUDA_VERSION=12.8 run_embedding 12080 cuda-version-from-build-system
    CUDARC_CUDA_VERSION=13000 run_embedding 13000 ""
}

# Runs tests/embedding with the given feature, if any, or else with the variable, which has to select the given version.
run_embedding() {
    local folder=$target_dir/embedding-libraries name
    cargo build --package cuda-stand-in --lib
    mkdir -p "$folder"
    for name in libcuda.so libcuda.so.1; do
        ln -sf "$(realpath "$target_dir/debug/libcuda_stand_in.so")" "$folder/$name"
    done
    cp Cargo.lock tests/embedding/Cargo.lock # the same versions as in the workspace
    EXPECTED_CUDA_VERSION=$1 cargo build --manifest-path tests/embedding/Cargo.toml \
        --target-dir "$target_dir/embedding" --features "$2"
    LD_LIBRARY_PATH=$(realpath "$folder") "$target_dir/embedding/debug/embedding"
}

# Type-checks the example for candle with GPUs, for the CUDA version that candle finds by nvcc. A
# toolkit is not needed for that: tests/support/cuda-toolkit stands in for it.
check_candle() {
    local toolkit=$PWD/tests/support/cuda-toolkit
    PATH=$toolkit/bin:$PATH CUDA_HOME=$toolkit CUDA_COMPUTE_CAP=80 STAND_IN_CUDA_VERSION=13.0 \
        cargo check -p ringload-examples --features cuda
}
