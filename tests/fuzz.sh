#!/usr/bin/env bash
# Runs the campaigns of random headers and indexes, and of other text from files and servers, with
# optimised code that checks for overflow:
#
#   tests/fuzz.sh              100,000,000 headers, and as many indexes and pages of each store
#   tests/fuzz.sh N            N of each
#   tests/fuzz.sh N headers    those headers alone (or: indexes, text)
#   tests/fuzz.sh 17..18       the seeds from 17 to 18, which repeats seed 17
#
# All cores work; `taskset -c 0 nice tests/fuzz.sh` uses one. The rate is printed once a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=${1:-100000000}
[[ $seeds == *..* ]] || seeds=0..$seeds
case ${2:-all} in
    headers) tests=(checkpoint::header::fuzz) ;;
    indexes) tests=(checkpoint::index::fuzz) ;;
    text) tests=(any_bytes_are any_header_is) ;;
    all) tests=(checkpoint::header::fuzz checkpoint::index::fuzz any_bytes_are any_header_is) ;;
    *)
        sed -n '2,/^set / s/^# \{0,1\}//p' tests/fuzz.sh >&2
        exit 2
        ;;
esac
# What makes and judges the inputs. All other crates are used as the tests have them. Level 1 compiles
# ringload in a quarter of the time of level 3, and runs nearly as fast.
fast=(--config profile.dev.package.ringload.opt-level=1)
for package in serde serde_core serde_json safetensors fastrand memchr quick-xml; do
    fast+=(--config "profile.dev.package.$package.opt-level=3")
done
export RINGLOAD_TEST_SEEDS=$seeds
cargo test --package ringload --lib "${fast[@]}" -- --test-threads 1 --nocapture "${tests[@]}"
