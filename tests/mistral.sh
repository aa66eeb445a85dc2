#!/usr/bin/env bash
# Applies the patch of docs/candle.md to mistralrs-core from crates.io, and tests the patched loading:
# its tensors are those of mistral.rs, and a tiny Llama gives the same greedy text and logits, loaded
# with ringload, and by mistral.rs without the patch.
#
#   target/glue/mistral/core      mistralrs-core with the patch
#                       patched/  a program with it, and tests of its loading
#                       own/      the same program with mistralrs-core from crates.io
#
# To compile all of it takes 8 minutes of processor time and 3 GB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/glue
version=0.8.1
work=$target_dir/mistral

# Copies the sources of mistralrs-core, which cargo downloads, to $work/core, and patches them. Sources that
# are there already stay, so that they are not compiled again.
patch_sources() {
    local scratch=$work/fetch source
    rm -rf "$scratch" "$work/new"
    mkdir -p "$scratch/src"
    : >"$scratch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2024"\n[workspace]\n[dependencies]\nmistralrs-core = "=%s"\n' \
        "$version" >"$scratch/Cargo.toml"
    cargo fetch --quiet --manifest-path "$scratch/Cargo.toml"
    source=$(cargo metadata --format-version 1 --manifest-path "$scratch/Cargo.toml" | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*(os.path.dirname(it["manifest_path"]) for it in packages if it["name"] == "mistralrs-core"))')
    cp -r "$source" "$work/new"
    # The first block of "diff" of the page.
    awk '/^```diff/ { inside = 1; next } /^```/ && inside { exit } inside' docs/candle.md |
        patch --directory "$work/new" --strip 1 --quiet
    printf '\n[dependencies.ringload-candle]\npath = "%s"\n[workspace]\n' \
        "$PWD/src/glue/candle-0.10" >>"$work/new/Cargo.toml"
    diff --recursive --brief "$work/new" "$work/core" &>/dev/null && return
    rm -rf "$work/core"
    mv "$work/new" "$work/core"
}

# Writes the package $work/NAME: its manifest, which ends with the text MORE, and these files of
# tests/mistral/src. A workspace of its own: mistral.rs pins versions that the lock file of ringload need not
# have. Files that are there already stay.
write_package() {
    local name=$1 more=$2 file
    shift 2
    mkdir -p "$work/$name/src"
    for file in "$@"; do
        cmp --silent "tests/mistral/src/$file" "$work/$name/src/$file" ||
            cp "tests/mistral/src/$file" "$work/$name/src/$file"
    done
    cat >"$work/$name/Cargo.toml" <<END
[package]
name = "$name-mistral"
version = "0.1.0"
edition = "2024"
publish = false

[workspace]

# As in src/glue/candle-0.10, so that the dependencies are not compiled twice.
[profile.dev]
debug = "line-tables-only"

[profile.dev.package."*"]
debug = false

[dependencies]
anyhow = "1"
candle-core = "0.10.2"
# Exactly this version, whose mistralrs-core the patch is for.
mistralrs-core = "=$version"
safetensors = "0.8.0"
serde_json = "1"
tokio = { version = "1", features = ["rt-multi-thread"] }
$more
END
}

# Generates text with the program of package $1. The log goes to $work/NAME.log; the text, the tokens and
# their logits go to $work/NAME.txt.
generate() {
    local name=$1
    env HF_HOME="$work/hub" NO_COLOR=1 "$target_dir/debug/$name-mistral" "$work/model" \
        >"$work/$name.log" || { cat "$work/$name.log" >&2 && exit 1; }
    grep -E '^(text|token): ' "$work/$name.log" >"$work/$name.txt"
}

compare_text() {
    rm -rf "$work/model"
    generate own
    generate patched
    diff "$work/own.txt" "$work/patched.txt"
    cat "$work/patched.txt"
    # What ringload logs at the end of a load.
    local loaded=' ringload::.* loaded bytes=.* tensors=21 '
    if grep -E "$loaded" "$work/own.log"; then
        echo "error: mistral.rs has loaded with ringload where it should not" >&2
        exit 1
    fi
    if ! grep -E "$loaded" "$work/patched.log"; then
        cat "$work/patched.log" >&2
        echo "error: the patched mistralrs-core has not loaded 21 tensors with ringload" >&2
        exit 1
    fi
}

in_package() {
    local name=$1 command=$2
    shift 2
    cargo "$command" --manifest-path "$work/$name/Cargo.toml" --target-dir "$target_dir" "$@"
}

patch_sources
write_package patched "
derive-new = \"0.7.0\"
mistralrs-quant = \"=$version\"
regex = \"1\"
ringload-candle = { path = \"$PWD/src/glue/candle-0.10\" }
tempfile = \"3.21.0\"
tracing = \"0.1\"

[patch.crates-io]
mistralrs-core = { path = \"../core\" }" checkpoint.rs lib.rs main.rs
in_package patched test --lib
in_package patched build --bin patched-mistral
write_package own "" checkpoint.rs main.rs
cp "$work/patched/Cargo.lock" "$work/own/Cargo.lock" # the same versions, which are compiled already
in_package own build
compare_text
