#!/usr/bin/env bash
# Checks and measures loads to an NVIDIA GPU.
#
#   perf/gpu.sh pack [--from DIR] [--to DIR]
#       builds the binaries and gathers them and this script in a folder (--to; default target/gpu),
#       which is then copied to a machine with a GPU; --from uses existing binaries instead
#   gpu.sh run [--out DIR] [--size GIB] [--dir DIR] [--machine TEXT] [-- MORE...]
#       runs on that machine, which needs only bash and the folder: checks the kernels and loads,
#       measures loads, and writes gpu.md and gpu.json (to --out; default: the current directory).
#       Succeeds if all checks pass and all targets are reached. --size is the size of the large
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
    local root from='' to='' binary
    root=$(cd "$here/.." && pwd)
    while [[ $# -gt 0 ]]; do
        case $1 in
            --from) from=$(value "$@") ;;
            --to) to=$(value "$@") ;;
            *) fail "pack has no option $1 (see $0 --help)" ;;
        esac
        shift 2
    done
    local target=${CARGO_TARGET_DIR:-$root/target}
    to=${to:-$target/gpu}
    if [[ -z $from ]]; then
        (cd "$root" && cargo build --release --locked -p ringload -p ringload-gpu)
        from=$target/release
    fi
    mkdir -p "$to"
    for binary in ringload ringload-gpu; do
        [[ -x $from/$binary ]] || fail "$from/$binary does not exist; build it, or omit --from"
        strip -o "$to/$binary.new" "$from/$binary"
        mv "$to/$binary.new" "$to/$binary"
    done
    cp "${BASH_SOURCE[0]}" "$to/gpu.sh"
    describe "$root" "$to" >"$to/VERSION"
    check_size "$to"
    cat "$to/VERSION"
}

# Describes the versions in the folder.
describe() {
    local root=$1 to=$2
    echo "version: $("$to/ringload" --version)"
    echo "commit: $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
    echo "architecture: $(uname -m)"
    # The newest version that a symbol of either binary requires.
    echo "glibc: $(objdump -T "$to/ringload" "$to/ringload-gpu" |
        sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\)).*/\1/p' | sort -Vu | tail -n 1) or later"
}

check_size() {
    local kibibytes
    kibibytes=$(du -sk "$1" | cut -f 1)
    echo "$1: $(((kibibytes + 1023) / 1024)) MiB, at most $limit_mebibytes"
    ((kibibytes <= limit_mebibytes * 1024)) ||
        fail "the folder is larger than it should be; does $1 contain other files?"
}

run() {
    local out=. size=8 disk=/var/tmp machine=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --out) out=$(value "$@") ;;
            --size) size=$(value "$@") ;;
            --dir) disk=$(value "$@") ;;
            --machine) machine=(--machine "$(value "$@")") ;;
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
        "${machine[@]}" "$@" &
    child=$!
    wait "$child" # the child runs in the background so that bash handles signals at once
    child=''
}

# Checks that the binaries run on this machine and find a GPU.
check_machine() {
    find_driver
    if ! "$here/ringload-gpu" --version >/dev/null; then
        cat "$here/VERSION" >&2 || true
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
