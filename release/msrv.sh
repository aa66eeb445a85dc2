#!/usr/bin/env bash
# Checks that the workspace builds with the oldest version of Rust that Cargo.toml promises.
#
#   release/msrv.sh             with that version where rustup has it. Elsewhere clippy looks for what
#                               newer versions of the standard library have, and no dependency may
#                               name a newer version of Rust: that finds most, but not new syntax
#   release/msrv.sh --install   lets rustup download that version first
#
# The last line says which of the two ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source release/common.sh

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

build_with_it() {
    cargo "+$oldest" check --locked --workspace --all-targets --features capi \
        --target-dir "$target_dir/msrv"
    echo "minimum Rust version: the workspace builds with Rust $oldest"
}

# The arguments are those of .ci/run, so that nothing is checked twice. "-D warnings" includes
# clippy's incompatible_msrv, which takes the version from Cargo.toml.
check_without_it() {
    cargo clippy --workspace --all-targets --features capi -- -D warnings
    check_dependencies
    echo "minimum Rust version: Rust $oldest is not installed, so clippy and the versions that" \
        "dependencies name were checked (to build: release/msrv.sh --install)"
}

check_dependencies() {
    cargo metadata --locked --format-version 1 --features ringload-capi/capi |
        python3 -c '
import json, sys

def number(version):
    return tuple(int(part) for part in version.split(".")[:2])

packages = json.load(sys.stdin)["packages"]
named = [package for package in packages if package["rust_version"]]
newer = [package for package in named if number(package["rust_version"]) > number(sys.argv[1])]
for package in newer:
    print("error:", package["name"], package["version"], "needs Rust", package["rust_version"])
print(len(named), "of", len(packages), "packages name the version of Rust that they need")
sys.exit(bool(newer) or not named)
' "$oldest"
}

case ${1-} in
    "") ;;
    --install) rustup toolchain install --profile minimal "$oldest" ;;
    *) fail "usage: release/msrv.sh [--install]" ;;
esac

if RUSTUP_AUTO_INSTALL=0 cargo "+$oldest" --version >/dev/null 2>&1; then
    build_with_it
else
    check_without_it
fi
