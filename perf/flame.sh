#!/usr/bin/env bash
# Draws a flame graph of one load.
#
#   perf/flame.sh OUT.svg ARGUMENTS OF RINGLOAD...
#   perf/flame.sh target/http.svg load --drop http://127.0.0.1:8080/model.safetensors
#
# Builds ringload with frame pointers in target/flame, samples the user and kernel stacks of all its
# threads with perf(1), and draws them with inferno, which it installs in target/flame if needed.
set -euo pipefail

[[ $# -ge 2 && $1 == *.svg ]] || { sed -n '2,/^set / s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
command -v perf >/dev/null || { echo "error: perf is not installed (Debian: linux-perf)" >&2; exit 1; }
out=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/flame

RUSTFLAGS="-C force-frame-pointers=yes" CARGO_TARGET_DIR=$target cargo build --quiet --release --locked
[[ -x $target/tools/bin/inferno-flamegraph ]] ||
    cargo install --quiet --locked --root "$target/tools" inferno@0.12.8

samples=$(mktemp "$target/XXXXXX.data")
trap 'rm -f "$samples"' EXIT
perf record --quiet --freq 1999 --call-graph fp --output "$samples" -- "$target/release/ringload" "$@" >/dev/null
perf script --input "$samples" 2>/dev/null |
    "$target/tools/bin/inferno-collapse-perf" |
    "$target/tools/bin/inferno-flamegraph" --title "ringload $*" --minwidth 0.3 >"$out"
echo "$out"
