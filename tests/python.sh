#!/usr/bin/env bash
# Tests the Python package: builds its wheel as a user would, installs the wheel and what the tests
# and examples require (python/requirements-test.txt and requirements-examples.txt) into a virtual
# environment below target/, lints the sources, and runs pytest.
#
#   tests/python.sh [ARGUMENTS OF PYTEST]
#
# The wheel is a debug build, which compiles faster; RINGLOAD_PYTHON_PROFILE=release builds the
# wheel that users get. With RINGLOAD_TEST_LONG, vLLM (1.1 GB) is installed and the plugin is tested
# in it; otherwise the plugin is only tested with a small stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${RINGLOAD_PYTHON_PROFILE:-dev}
python=${PYTHON:-python3}
work_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/python
venv=$work_dir/venv
requirements=(python/requirements-test.txt python/requirements-examples.txt)
export RINGLOAD_TEST_EXAMPLES=require

step() {
    printf '\n== %s\n' "$*"
}

# Creates the virtual environment, unless it exists for the same requirements and Python version.
install_requirements() {
    local wanted
    wanted=$("$python" --version; cat "${requirements[@]}")
    if [[ -f $venv/installed && $(<"$venv/installed") == "$wanted" ]]; then
        return
    fi
    step "Python: the requirements of the tests"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
    printf '%s\n' "$wanted" >"$venv/installed"
}

# Installs vLLM without its dependencies, which are for GPUs and include another version of torch.
install_vllm() {
    step "Python: vLLM"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        -r python/requirements-vllm.txt
    export RINGLOAD_TEST_VLLM=require
}

# Builds in the workspace's target directory, so that dependencies are compiled only once.
build_wheel() {
    step "Python: the wheel"
    rm -rf "$work_dir/dist"
    MATURIN_PEP517_ARGS="--locked --profile $profile" PATH="$venv/bin:$PATH" \
        "$venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --wheel-dir "$work_dir/dist" ./python
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall \
        "$work_dir"/dist/ringload-*.whl
}

lint() {
    step "Python: ruff and mypy"
    "$venv/bin/ruff" format --check python
    "$venv/bin/ruff" check python
    "$venv/bin/ruff" format --check --config python/pyproject.toml examples perf/peers
    "$venv/bin/ruff" check --config python/pyproject.toml examples perf/peers
    (cd python && "$venv/bin/mypy" --cache-dir "$work_dir/mypy")
    # Compares the stubs with the native module.
    (cd "$work_dir" && "$venv/bin/stubtest" --ignore-missing-stub ringload._ringload)
}

# Builds the stand-in for the CUDA driver, which tests load through LD_LIBRARY_PATH.
build_stand_in() {
    step "Python: the stand-in for GPUs"
    cargo build --quiet --locked -p cuda-stand-in --lib
    local library name
    library=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/libcuda_stand_in.so
    mkdir -p "$work_dir/stand-in"
    for name in libcuda.so libcuda.so.1 libcufile.so libcufile.so.0; do
        ln -sf "$library" "$work_dir/stand-in/$name"
    done
    export RINGLOAD_TEST_STAND_IN=$work_dir/stand-in
}

install_requirements
build_stand_in
build_wheel
lint
step "Python: pytest"
# `python -m pytest` would import the package from the sources, which have no native module.
"$venv/bin/pytest" -c python/pyproject.toml --rootdir python -o cache_dir="$work_dir/pytest" \
    "${@:-python/tests}"
