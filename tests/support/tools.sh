# Installs the tools that tests/run.sh and .ci/run need; they source this file.

# The build needs a C compiler for aws-lc-rs, which compiles C and assembly, and a C++ compiler for
# the stand-in for the CUDA driver, which compiles the kernels.
install_tools() {
    if ! command -v cargo >/dev/null; then
        echo "error: cargo is not on the PATH; install Rust from https://rustup.rs" >&2
        exit 1
    fi
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v c++ >/dev/null || missing+=(g++)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

install_packages() {
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        as_root=(sudo -n)
        if ! command -v sudo >/dev/null; then
            echo "error: please install $* (this user is not root, and sudo is not installed)" >&2
            exit 1
        fi
    fi
    echo "installing $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes -qq --no-install-recommends "$@"
}
