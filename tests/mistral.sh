#!/usr/bin/env bash
# Applies the patch of docs/candle.md to mistralrs-core from crates.io, and tests the patched loading:
# its tensors are those of mistral.rs, and a tiny Llama gives the same greedy text and logits, loaded
# with ringload and by mistral.rs itself.
#
# Both are in one program, as the patch leaves mistral.rs's own loading to MISTRALRS_NO_MMAP=1. To
# compile all of it takes 8 minutes of processor time and 3 GB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/glue
version=0.8.1
patched=$PWD/tests/mistral/target/patched

# Copies the sources of mistralrs-core, which cargo downloads, to $patched/core, and patches them.
# Sources that are there already stay, so that they are not compiled again.
patch_sources() {
    local scratch=$patched/fetch source
    rm -rf "$scratch" "$patched/new"
    mkdir -p "$scratch/src"
    : >"$scratch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2024"\n[workspace]\n[dependencies]\nmistralrs-core = "=%s"\n' \
        "$version" >"$scratch/Cargo.toml"
    cargo fetch --quiet --manifest-path "$scratch/Cargo.toml"
    source=$(cargo metadata --format-version 1 --manifest-path "$scratch/Cargo.toml" | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*(os.path.dirname(it["manifest_path"]) for it in packages if it["name"] == "mistralrs-core"))')
    cp -r "$source" "$patched/new"
    # The first block of "diff" of the page.
    awk '/^```diff/ { inside = 1; next } /^```/ && inside { exit } inside' docs/candle.md |
        patch --directory "$patched/new" --strip 1 --quiet
    printf '\n[dependencies.ringload-candle]\npath = "%s"\n[workspace]\n' \
        "$PWD/src/glue/candle-0.10" >>"$patched/new/Cargo.toml"
    diff --recursive --brief "$patched/new" "$patched/core" &>/dev/null && return
    rm -rf "$patched/core"
    mv "$patched/new" "$patched/core"
}

# Generates text. The log goes to $patched/NAME.log; the text, the tokens and their logits go to
# $patched/NAME.txt.
generate() {
    local name=$1
    shift
    env HF_HOME="$patched/hub" NO_COLOR=1 "$@" "$target_dir/debug/patched-mistral" \
        "$patched/model" >"$patched/$name.log" || { cat "$patched/$name.log" >&2 && exit 1; }
    grep -E '^(text|token): ' "$patched/$name.log" >"$patched/$name.txt"
}

compare_text() {
    rm -rf "$patched/model"
    generate own MISTRALRS_NO_MMAP=1
    generate patched
    diff "$patched/own.txt" "$patched/patched.txt"
    cat "$patched/patched.txt"
    # What ringload logs at the end of a load.
    local loaded=' ringload::.* loaded bytes=.* tensors=21 '
    if grep -E "$loaded" "$patched/own.log"; then
        echo "error: mistral.rs has loaded with ringload where it should not" >&2
        exit 1
    fi
    if ! grep -E "$loaded" "$patched/patched.log"; then
        cat "$patched/patched.log" >&2
        echo "error: the patched mistralrs-core has not loaded 21 tensors with ringload" >&2
        exit 1
    fi
}

patch_sources
options=(--manifest-path tests/mistral/Cargo.toml --target-dir "$target_dir")
cargo test "${options[@]}" --lib
cargo build "${options[@]}" --bin patched-mistral
compare_text
