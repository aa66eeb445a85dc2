#!/usr/bin/env bash
# Applies the patch of docs/candle.md to mistralrs-core from crates.io, and tests the patched loading.
#
#   tests/mistral.sh           the patched file with mistralrs-quant: its tensors are those of mistral.rs
#   tests/mistral.sh --long    also type-checks all of the patched mistralrs-core
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
version=0.8.1
patched=tests/mistral/target/patched

# Copies the sources of mistralrs-core, which cargo downloads, to $patched/core, and patches them.
patch_sources() {
    local scratch=$patched/fetch source
    rm -rf "$patched"
    mkdir -p "$scratch/src"
    : >"$scratch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2024"\n[workspace]\n[dependencies]\nmistralrs-core = "=%s"\n' \
        "$version" >"$scratch/Cargo.toml"
    cargo fetch --quiet --manifest-path "$scratch/Cargo.toml"
    source=$(cargo metadata --format-version 1 --manifest-path "$scratch/Cargo.toml" | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*(os.path.dirname(it["manifest_path"]) for it in packages if it["name"] == "mistralrs-core"))')
    cp -r "$source" "$patched/core"
    # The first block of "diff" of the page.
    awk '/^```diff/ { inside = 1; next } /^```/ && inside { exit } inside' docs/candle.md |
        patch --directory "$patched/core" --strip 1 --quiet
    cp "$patched/core/src/utils/varbuilder_utils.rs" "$patched/"
}

check_all() {
    printf '\n[dependencies.ringload-candle]\npath = "%s"\n[workspace]\n' \
        "$PWD/src/glue/candle-0.10" >>"$patched/core/Cargo.toml"
    cargo check --manifest-path "$patched/core/Cargo.toml" --target-dir "$target_dir/glue"
}

patch_sources
cargo test --manifest-path tests/mistral/Cargo.toml --target-dir "$target_dir/glue"
case ${1-} in
    "") ;;
    --long) check_all ;;
    *)
        echo "usage: tests/mistral.sh [--long]" >&2
        exit 2
        ;;
esac
