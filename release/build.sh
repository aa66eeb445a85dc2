#!/usr/bin/env bash
# Makes the packages of a release in target/release-packages, and tests each as a user without Rust
# would use it.
#
#   release/build.sh                  all of them, and SHA256SUMS
#   release/build.sh crate command library wheel
#                                     only those that are named
#   release/build.sh --old-debian     all of them, and runs them in Debian 11 too (needs root and
#                                     debootstrap, and 310 MB of disk for what Debian's mirror has)
#
#   crate     the packages for crates.io, compiled from their archives alone; those for candle and burn too
#   command   the command with man pages and completions of bash, zsh and fish
#   library   the C library with its headers and its file for pkg-config
#   wheel     the Python wheel for CPython 3.9 and later
#
# Everything is for x86_64 and glibc 2.28 or later, and is compiled with zig's C compiler, which PyPI
# has. Needs Rust, Python, pkg-config, binutils and a C compiler for the test of the C library.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source release/common.sh
source release/crate.sh
source release/command.sh
source release/c_library.sh
source release/wheel.sh
source release/old_debian.sh

is_wanted() {
    [[ " ${wanted[*]} " == *" $1 "* ]]
}

make_crate() {
    step "crates: package and compile" package_crate
    step "crates for candle 0.10 and burn: package and compile" package_glue
    step "crates: test" test_crate
}

# Both in one go, as they have the same dependencies.
compile_binaries() {
    with_tools cargo build --locked --release --target "$triple" \
        -p ringload -p ringload-capi --features ringload-capi/capi
}

make_binaries() {
    step "command and C library: compile for glibc $glibc" compile_binaries
    if is_wanted command; then
        step "command: package" package_command
        step "command: test" test_command
    fi
    if is_wanted library; then
        step "C library: package" package_library
        step "C library: test" test_library
    fi
}

make_wheel() {
    step "wheel: compile, audit" package_wheel
    step "wheel: test" test_wheel
}

write_checksums() {
    (cd "$packages" && sha256sum -- * >"$work/SHA256SUMS")
    mv "$work/SHA256SUMS" "$packages"
    ls -l "$packages"
}

wanted=()
with_old_debian=
for argument in "$@"; do
    case $argument in
        crate | command | library | wheel) wanted+=("$argument") ;;
        --old-debian) with_old_debian=yes ;;
        *) end_with_usage release/build.sh "$argument" ;;
    esac
done
if ((${#wanted[@]} == 0)); then
    wanted=(crate command library wheel)
fi

empty_directory "$packages"
mkdir -p "$work"
check_that_rust_is_missing
if is_wanted crate; then
    make_crate
fi
if is_wanted command; then
    step "command: man pages and completions" write_manual # before zig replaces the linker
fi
if is_wanted command || is_wanted library || is_wanted wheel; then
    step "tools" install_tools
    use_zig
    step "third-party licences" write_third_party
fi
if is_wanted command || is_wanted library; then
    make_binaries
fi
if is_wanted wheel; then
    make_wheel
fi
step "checksums" write_checksums
if [[ $with_old_debian ]]; then
    step "Debian 11: install" install_old_debian
    step "Debian 11: test" test_in_old_debian
fi
