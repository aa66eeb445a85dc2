#!/usr/bin/env bash
# Checks licences, duplicate versions, banned crates and known vulnerabilities of all dependencies with
# cargo-deny. deny.toml has the rules.
#
# cargo-deny is installed below target/ once, from crates.io. The database of vulnerabilities is on
# GitHub; where GitHub is out of reach, the last copy on this machine is used, and without a copy the
# other checks run alone. The last line says which of the three happened.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source release/common.sh

cargo_deny_version=0.20.2
database=https://github.com/RustSec/advisory-db

# Unoptimised: it compiles in half of the time, and runs for seconds.
install_cargo_deny() {
    if [[ $("$tools/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $cargo_deny_version" ]]; then
        return
    fi
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install --quiet --locked --no-default-features --root "$tools" \
        --target-dir "$tools/build" "cargo-deny@$cargo_deny_version"
    rm -rf "$tools/build"
}

# deny WHICH...: a warning is an error, so that deny.toml has no rule that is no longer needed.
deny() {
    "$tools/bin/cargo-deny" --locked --workspace check --deny warnings --hide-inclusion-graph "$@"
}

# deny_glue WHICH...: the crates for candle 0.10 and burn, which are workspaces of their own. Which versions
# are there twice is decided by candle and burn, and not all rules of deny.toml are needed for each.
deny_glue() {
    local folder
    for folder in candle-0.10 burn; do
        "$tools/bin/cargo-deny" --manifest-path "$PWD/src/glue/$folder/Cargo.toml" --config deny.toml \
            check --hide-inclusion-graph --allow duplicate --allow unmatched-skip \
            --allow unnecessary-skip --allow license-exception-not-encountered "$@"
    done
}

check_advisories() {
    local copy=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
    if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --quiet "$database" HEAD >/dev/null 2>&1; then
        deny advisories
        echo "advisories: checked with the current database"
    elif compgen -G "$copy/advisory-db-*" >/dev/null; then
        deny --disable-fetch advisories
        echo "advisories: checked with the copy in $copy; GitHub cannot be reached"
    else
        echo "advisories: NOT CHECKED: GitHub cannot be reached, and $copy has no copy of the database"
    fi
}

step "cargo-deny" install_cargo_deny
step "licences, versions, banned crates, sources" deny licenses bans sources
step "the same for candle 0.10 and burn" deny_glue licenses bans sources
step "advisories" check_advisories
