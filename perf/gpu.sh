#!/usr/bin/env bash
# Checks and measures loads onto an NVIDIA GPU.
#
#   perf/gpu.sh pack [--from DIR] [--to DIR]
#       builds what is needed and gathers it in one folder, target/gpu (--to), which is then taken to
#       a machine with a GPU; --from takes binaries that are built already
#   gpu.sh run [--out DIR] [--size GIB] [--dir DIR] [--machine TEXT] [-- MORE...]
#       on that machine, with bash and that folder alone: checks the kernels and loads, measures, and
#       writes DIR/gpu.md and DIR/gpu.json (--out; default: here). Succeeds if nothing is wrong and
#       every target is reached. --size is that of the large checkpoint (default 8), --dir a directory
#       on the disk to be measured (default /var/tmp), --machine what to call the machine; what
#       follows -- goes to `ringload-gpu run`
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

# The value of an option, which may not be missing: option, value, ...
value() {
    [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value"
    printf '%s' "$2"
}

pack() {
    local root from='' to=''
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
    local binary
    for binary in ringload ringload-gpu; do
        [[ -x $from/$binary ]] || fail "$from/$binary is not there; build it, or leave --from out"
        strip -o "$to/$binary.new" "$from/$binary"
        mv "$to/$binary.new" "$to/$binary"
    done
    cp "${BASH_SOURCE[0]}" "$to/gpu.sh"
    describe "$root" "$to" >"$to/VERSION"
    check_size "$to"
    cat "$to/VERSION"
}

# What the folder holds, for whoever finds it later.
describe() {
    local root=$1 to=$2
    echo "version: $("$to/ringload" --version)"
    echo "commit: $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
    echo "architecture: $(uname -m)"
    echo "glibc: $(glibc_needed "$to") or later"
}

# The newest version of glibc that a symbol of either binary asks for.
glibc_needed() {
    objdump -T "$1/ringload" "$1/ringload-gpu" |
        sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\)).*/\1/p' | sort -Vu | tail -n 1
}

check_size() {
    local kibibytes
    kibibytes=$(du -sk "$1" | cut -f 1)
    echo "$1: $(((kibibytes + 1023) / 1024)) MiB, at most $limit_mebibytes"
    ((kibibytes <= limit_mebibytes * 1024)) ||
        fail "the folder is too large to be taken along; is anything else in $1?"
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
    # Signals end the shell by way of the trap above.
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    make_tmpfs "$size"
    # A size given behind -- wins.
    "$here/ringload-gpu" run --out "$out" --size "${size}GiB" --dir "$work" --tmpfs "$tmpfs" \
        "${machine[@]}" "$@" &
    child=$!
    wait "$child" # in the foreground, a signal would have to wait for it
    child=''
}

# Whether the binaries run here, and find a GPU.
check_machine() {
    find_driver
    if ! "$here/ringload-gpu" --version >/dev/null; then
        cat "$here/VERSION" >&2 || true
        fail "ringload-gpu does not run here; this machine has $(uname -m), $(glibc_here)"
    fi
    "$here/ringload-gpu" gpu >/dev/null || fail "there is no GPU to measure"
}

glibc_here() {
    getconf GNU_LIBC_VERSION 2>/dev/null || echo "no glibc"
}

# Containers have the driver's library in places that the system does not look at.
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

# A directory on tmpfs with room for the checkpoint: in /dev/shm, or, where that is small and this is
# root, one of its own.
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
    echo "warning: there is no tmpfs with $((needed >> 20)) GiB to spare" >&2
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
        pack)
            shift
            pack "$@"
            ;;
        run)
            shift
            run "$@"
            ;;
        -h | --help)
            usage
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    exit # nothing behind is read any more: the file may have changed
}

main "$@"
