# What the scripts of this directory share. They source this file, in the root of the repository.

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
packages=$target_dir/release-packages
work=$target_dir/release-work
tools=$target_dir/tools
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
triple=x86_64-unknown-linux-gnu
# manylinux_2_28 is the oldest: glibc has had `statx`, which ringload calls, since 2.28.
glibc=2.28
binaries=$target_dir/$triple/release

source tests/support/steps.sh

fail() {
    echo "error: $*" >&2
    exit 1
}

# Makes $1 an empty directory.
empty_directory() {
    rm -rf "$1"
    mkdir -p "$1"
}

# Installs the tools of requirements.txt in an environment of their own, unless they are there.
install_tools() {
    if [[ -f $tools/python.done && $(<"$tools/python.done") == "$(<release/requirements.txt)" ]]; then
        return
    fi
    empty_directory "$tools/python"
    "${PYTHON:-python3}" -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r release/requirements.txt
    cp release/requirements.txt "$tools/python.done"
}

with_tools() {
    PATH="$tools/python/bin:$PATH" "$@"
}

# Lets cargo and maturin compile for glibc $glibc: zig's C compiler has the symbols of every version
# of glibc. The programs have the same names for both, so that dependencies are compiled only once.
use_zig() {
    local program variable
    mkdir -p "$tools/zig"
    for program in cc c++ ar ranlib; do
        printf '#!/bin/sh\nexec "%s" zig %s -- %s "$@"\n' "$tools/python/bin/cargo-zigbuild" \
            "$program" "$([[ $program == c* ]] && echo "-target x86_64-linux-gnu.$glibc")" \
            >"$tools/zig/$program.new"
        chmod +x "$tools/zig/$program.new"
        mv "$tools/zig/$program.new" "$tools/zig/$program"
    done
    variable=${triple//-/_}
    export "CC_$variable=$tools/zig/cc" "CXX_$variable=$tools/zig/c++" "AR_$variable=$tools/zig/ar"
    export "RANLIB_$variable=$tools/zig/ranlib"
    export "CARGO_TARGET_${variable^^}_LINKER=$tools/zig/cc"
}

write_third_party() {
    with_tools python release/third_party.py >"$work/THIRD-PARTY.txt"
}

# Fails if the program or library $1 needs a newer glibc than $glibc.
check_glibc() {
    local newest missing
    newest=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    echo "${1##*/} needs ${newest/_/ }"
    [[ $(printf '%s\n' "$newest" "GLIBC_$glibc" | sort -V | tail -n 1) == "GLIBC_$glibc" ]] ||
        fail "$1 needs $newest, and not $glibc at most"
    # A function that glibc $glibc lacks has no version, as zig does not find it.
    missing=$(readelf --wide --dyn-syms "$1" |
        awk '$5 == "GLOBAL" && $7 == "UND" && $8 !~ /@/ { print $8 }')
    [[ -z $missing ]] || fail "$1 needs functions that glibc $glibc does not have: $missing"
}

copy_licences() {
    cp LICENSE-APACHE LICENSE-MIT "$work/THIRD-PARTY.txt" "$1"
}

# Copies licences and pages to the folder $2 of the directory $1, which has everything else already.
copy_documentation() {
    mkdir -p "$1/$2"
    copy_licences "$1/$2"
    "${PYTHON:-python3}" release/pages.py "$1" "$2"
}

# Packs the directory $1 as $packages/NAME.tar.gz, with the same bytes whenever the commit is the same.
pack() {
    local name=${1##*/}
    tar --create --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$(git log -1 --format=%ct)" --directory "${1%/*}" "$name" |
        gzip --no-name -9 >"$packages/$name.tar.gz"
}

# Runs a command as a machine without Rust would: no variables, and the programs of the system alone.
in_empty_environment() {
    mkdir -p "$work/home"
    env -i PATH=/usr/bin:/bin HOME="$work/home" LANG=C.UTF-8 "$@"
}

check_that_rust_is_missing() {
    local program
    for program in cargo rustc; do
        if in_empty_environment bash -c "command -v $program"; then
            fail "the environment of the tests has $program"
        fi
    done
}

# Writes a checkpoint of one tensor, "weight": the numbers 1 and 2.
write_checkpoint() {
    local header='{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}    '
    mkdir -p "${1%/*}"
    {
        printf "\\x$(printf %02x "${#header}")\0\0\0\0\0\0\0"
        printf '%s\0\0\x80\x3f\0\0\0\x40' "$header"
    } >"$1"
}
