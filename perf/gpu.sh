#!/usr/bin/env bash
# Checks and measures loads to an NVIDIA GPU.
#
#   perf/gpu.sh pack [--from DIR] [--wheel FILE] [--python VERSION] [--to DIR]
#       builds what is checked and gathers it with this script in a folder (--to; default
#       target/gpu), which is then copied to a machine with a GPU: the command, the checks, the Python
#       wheel, the C library, and the wheels of the peers for a version of Python (--python; default
#       3.12). --from takes existing binaries and --wheel an existing wheel instead. MANIFEST in the
#       folder lists what is there, and what is not and why
#   gpu.sh run [--minutes N] [--only STEP,...] [--out DIR] [--size GIB] [--dir DIR]
#              [--machine TEXT] [-- MORE...]
#       runs on that machine, which needs bash, the folder, and for some steps Python with torch and
#       safetensors: takes one step after the other, at most so many minutes (default 7), and writes
#       each result to gpu.jsonl when it comes, and tables to gpu.md and gpu.json (in --out;
#       default: the current directory). Run again with a gpu.jsonl in --out, it goes on with the
#       steps that are not finished. Succeeds if all steps are finished, all checks pass and all
#       targets are reached. --only takes these steps alone, --size is the size of the large
#       checkpoint (default 8), --dir a directory on the disk to measure (default /var/tmp), and
#       --machine the name of the machine in the report; the arguments after -- are passed to
#       `ringload-gpu run`
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
limit_mebibytes=60

usage() {
    sed -n '2,/^set / s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

fail() {
    echo "error: $*" >&2
    exit 1
}

# Prints the value of an option, or fails if there is none. Arguments: option, value, ...
value() {
    [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value"
    printf '%s' "$2"
}

pack() {
    local root from='' wheel='' python=3.12 to=''
    root=$(cd "$here/.." && pwd)
    while [[ $# -gt 0 ]]; do
        case $1 in
            --from) from=$(value "$@") ;;
            --wheel) wheel=$(value "$@") ;;
            --python) python=$(value "$@") ;;
            --to) to=$(value "$@") ;;
            *) fail "pack has no option $1 (see $0 --help)" ;;
        esac
        shift 2
    done
    local target=${CARGO_TARGET_DIR:-$root/target}
    to=${to:-$target/gpu}
    if [[ -z $from ]]; then
        (cd "$root" && cargo build --release --locked -p ringload -p ringload-gpu -p ringload-capi \
            --features ringload-capi/capi)
        from=$target/release
    fi
    rm -rf "$to/steps" "$to/wheels"
    mkdir -p "$to/wheels"
    missing=()
    pack_binaries
    pack_c_library
    pack_wheel
    pack_peers
    cp -r "$here/gpu/steps" "$to/steps"
    rm -rf "$to/steps/__pycache__"
    cp "${BASH_SOURCE[0]}" "$to/gpu.sh"
    describe >"$to/MANIFEST"
    check_size "$to"
    cat "$to/MANIFEST"
}

# The functions below use the variables of `pack`.

pack_binaries() {
    local binary
    for binary in ringload ringload-gpu; do
        [[ -x $from/$binary ]] || fail "$from/$binary does not exist; build it, or omit --from"
        strip -o "$to/$binary.new" "$from/$binary"
        mv "$to/$binary.new" "$to/$binary"
    done
}

# The C library, and a program that reads with it into GPU memory.
pack_c_library() {
    rm -f "$to/libringload.so"* "$to/capi-gpu"
    if [[ ! -e $from/libringload.so ]] || ! command -v cc >/dev/null; then
        missing+=("the C library: $from/libringload.so or a C compiler is missing")
        return
    fi
    local folder
    folder=$(mktemp -d "$to/library.XXXXXX")
    strip --strip-unneeded -o "$folder/libringload.so" "$from/libringload.so"
    if cc -std=gnu99 -pthread -I "$root/src/capi" -o "$to/capi-gpu" "$root/tests/capi/gpu.c" \
        -L "$folder" -lringload -ldl 2>"$folder/errors"; then
        gzip --stdout "$folder/libringload.so" >"$to/libringload.so.gz"
    else
        missing+=("the C library: $(tail -n 1 "$folder/errors")")
        rm -f "$to/capi-gpu"
    fi
    rm -r "$folder"
}

# ringload's own wheel, for any Python from 3.9 on.
pack_wheel() {
    if [[ -n $wheel ]]; then
        cp "$wheel" "$to/wheels"
    elif ! MATURIN_PEP517_ARGS="--locked --strip" python3 -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$to/wheels" "$root/python"; then
        missing+=("ringload's Python wheel: it could not be built")
    fi
}

# The wheels of peers, at the versions of peers.toml. What they need themselves is on the machine.
pack_peers() {
    local name version tag platforms=(--platform any --platform linux_x86_64)
    for tag in manylinux2014 manylinux_2_{17,24,27,28,30,31,34,35,39}; do
        platforms+=(--platform "${tag}_x86_64")
    done
    while read -r name version; do
        if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-input \
            --only-binary :all: --implementation cp --python-version "$python" \
            --abi "cp${python/./}" --abi abi3 --abi none "${platforms[@]}" \
            --dest "$to/wheels" "$name==$version" 2>"$to/errors"; then
            missing+=("$name $version: $(tail -n 1 "$to/errors")")
        fi
    done < <(sed -n '/^\[gpu\]/,/^\[/s/^\([a-z-]*\) = "\([^"]*\)".*/\1 \2/p' "$here/peers.toml")
    rm -f "$to/errors"
}

# What is in the folder, and what is not.
describe() {
    echo "version: $("$to/ringload" --version)"
    echo "commit: $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
    echo "architecture: $(uname -m)"
    echo "Python: $python"
    # The newest version that a symbol of either binary requires.
    echo "glibc: $(objdump -T "$to/ringload" "$to/ringload-gpu" |
        sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\)).*/\1/p' | sort -Vu | tail -n 1) or later"
    (cd "$to" && find . -type f ! -name MANIFEST -printf 'file: %P, %k KiB\n' | sort)
    printf 'missing: %s\n' "${missing[@]:-nothing}"
}

check_size() {
    local kibibytes
    kibibytes=$(du -sk "$1" | cut -f 1)
    echo "$1: $(((kibibytes + 1023) / 1024)) MiB, at most $limit_mebibytes"
    ((kibibytes <= limit_mebibytes * 1024)) && return
    # Binaries of another build may be larger.
    [[ -n $from ]] || fail "the folder is larger than it should be; does $1 contain other files?"
    echo "warning: $1 is larger than a pack of its own build" >&2
}

run() {
    local out=. size=8 disk=/var/tmp more=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --out) out=$(value "$@") ;;
            --minutes | --only | --machine) more+=("$1" "$(value "$@")") ;;
            --size) size=$(value "$@") ;;
            --dir) disk=$(value "$@") ;;
            --)
                shift
                break
                ;;
            *) fail "run has no option $1 (see $0 --help)" ;;
        esac
        shift 2
    done
    [[ $size =~ ^[0-9]+$ ]] || fail "--size is a number of GiB, not $size"
    check_machine
    mkdir -p "$out" "$disk"
    work=$(mktemp -d "$disk/ringload-gpu.XXXXXX")
    trap clean_up EXIT
    # After these signals the shell exits and runs the trap above.
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    make_tmpfs "$size"
    # A --size after -- overrides this one.
    "$here/ringload-gpu" run --out "$out" --size "${size}GiB" --dir "$work" --tmpfs "$tmpfs" \
        "${more[@]}" "$@" &
    child=$!
    wait "$child" # the child runs in the background so that bash handles signals at once
    child=''
}

# Checks that the binaries run on this machine and find a GPU.
check_machine() {
    find_driver
    if ! "$here/ringload-gpu" --version >/dev/null; then
        cat "$here/MANIFEST" >&2 || true
        fail "ringload-gpu does not run on this machine, which has $(uname -m)," \
            "$(getconf GNU_LIBC_VERSION 2>/dev/null || echo no glibc)"
    fi
    "$here/ringload-gpu" gpu >/dev/null || fail "no GPU was found"
}

# Adds the driver's library to the search path: containers have it in unusual directories.
find_driver() {
    local directory
    if [[ $(ldconfig -p 2>/dev/null) == *libcuda.so.1* ]]; then
        return
    fi
    for directory in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/x86_64-linux-gnu \
        /usr/lib64 /usr/lib/wsl/lib /run/opengl-driver/lib /usr/local/cuda/compat; do
        if [[ -e $directory/libcuda.so.1 ]]; then
            export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$directory
            return
        fi
    done
}

# Creates a directory on a tmpfs with enough space for the checkpoint: in /dev/shm, or, if that is
# too small, on a new tmpfs, which only root can mount.
make_tmpfs() {
    local needed=$((($1 + 3) * 1024 * 1024)) free
    tmpfs=$(mktemp -d /dev/shm/ringload-gpu.XXXXXX 2>/dev/null || mktemp -d "$work/tmpfs.XXXXXX")
    free=$(df -k --output=avail "$tmpfs" | tail -n 1)
    if [[ $tmpfs == /dev/shm/* ]] && ((free >= needed)); then
        return
    fi
    if mount -t tmpfs -o "size=${needed}k,mode=700" ringload-gpu "$tmpfs" 2>/dev/null; then
        mounted=1
        return
    fi
    echo "warning: no tmpfs has $((needed >> 20)) GiB of free space" >&2
}

work='' tmpfs='' mounted='' child=''

# shellcheck disable=SC2317 # a trap calls it
clean_up() {
    if [[ -n $child ]] && kill "$child" 2>/dev/null; then
        wait "$child" || true
    fi
    if [[ -n $mounted ]]; then
        umount "$tmpfs" || umount -l "$tmpfs" || true
    fi
    rm -rf ${tmpfs:+"$tmpfs"} ${work:+"$work"}
}

main() {
    case ${1-} in
        pack | run) "$@" ;;
        -h | --help) usage ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    exit # bash must not read on, because the file may have changed
}

main "$@"
