#!/usr/bin/env bash
# Runs the campaigns of random headers and indexes, and of other text from files and servers, with
# optimised code that checks for overflow:
#
#   tests/fuzz.sh              100,000,000 headers, a tenth of it of each other kind of text, and a
#                              thousandth of it of connections under TLS
#   tests/fuzz.sh N            N headers, and the same parts of it of the other kinds
#   tests/fuzz.sh N headers    N headers alone (or: indexes, text, tls)
#   tests/fuzz.sh 17..18 text  the seeds from 17 to 18, which repeats seed 17
#
# All cores work; `taskset -c 0 nice tests/fuzz.sh` uses one. The rate is printed once a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What makes and judges the inputs. All other crates are used as the tests have them. Level 1 compiles
# ringload in a quarter of the time of level 3, and runs nearly as fast.
fast=(--config profile.dev.package.ringload.opt-level=1)
for package in serde serde_core serde_json safetensors fastrand memchr quick-xml; do
    fast+=(--config "profile.dev.package.$package.opt-level=3")
done

# Runs the tests that the other arguments select, with these seeds.
fuzz() {
    local seeds=$1
    shift
    [[ $seeds == *..* ]] || seeds=0..$seeds
    RINGLOAD_TEST_SEEDS=$seeds \
        cargo test --package ringload --lib "${fast[@]}" -- --test-threads 1 --nocapture "$@"
}

seeds=${1:-100000000}
headers=checkpoint::header::fuzz
indexes=checkpoint::index::fuzz
text=(any_bytes_are any_header_is)
case ${2:-all} in
    headers) fuzz "$seeds" "$headers" ;;
    indexes) fuzz "$seeds" "$indexes" ;;
    tls) fuzz "$seeds" random_connections ;;
    text) fuzz "$seeds" "${text[@]}" ;;
    all)
        fuzz "$seeds" "$headers"
        [[ $seeds == *..* ]] || seeds=$((seeds / 10))
        fuzz "$seeds" "$indexes" "${text[@]}"
        [[ $seeds == *..* ]] || seeds=$((seeds / 100))
        fuzz "$seeds" random_connections
        ;;
    *)
        sed -n '2,/^set / s/^# \{0,1\}//p' tests/fuzz.sh >&2
        exit 2
        ;;
esac
