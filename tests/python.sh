#!/usr/bin/env bash
# Tests the Python package: builds its wheel as a user would, installs that into a virtual environment
# below target/ with what the tests and the examples need (python/requirements-test.txt and
# requirements-examples.txt), lints, and runs pytest.
#
#   tests/python.sh [ARGUMENTS OF PYTEST]
#
# The wheel is a debug build, which takes less time; RINGLOAD_PYTHON_PROFILE=release makes it the one
# that users get. With RINGLOAD_TEST_LONG in the environment vLLM is installed, too (1.1 GB), and its
# loader is tested in it; otherwise on a small stand-in.
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

# Installed anew when the list changes, or Python does.
install_requirements() {
    local wanted
    wanted=$("$python" --version; cat "${requirements[@]}")
    if [[ -f $venv/installed && $(<"$venv/installed") == "$wanted" ]]; then
        return
    fi
    step "Python: what the tests need"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
    printf '%s\n' "$wanted" >"$venv/installed"
}

# Without its dependencies, which are for GPUs, and would bring another torch.
install_vllm() {
    step "Python: vLLM"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        -r python/requirements-vllm.txt
    export RINGLOAD_TEST_VLLM=require
}

# In the workspace's target directory, so that dependencies are built once.
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
    # The stubs are what the native module is.
    (cd "$work_dir" && "$venv/bin/stubtest" --ignore-missing-stub ringload._ringload)
}

# Stands in for the CUDA driver, by library path.
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
# Not `python -m pytest`: that would import the sources, which have no native module.
"$venv/bin/pytest" -c python/pyproject.toml --rootdir python -o cache_dir="$work_dir/pytest" \
    "${@:-python/tests}"
