#!/usr/bin/env bash
# Tests the Python package: builds its wheel as a user would, installs the wheel and what the tests
# require (python/requirements-test.txt) into a virtual environment below target/, and runs pytest.
#
#   tests/python.sh [ARGUMENTS OF PYTEST]
#   tests/python.sh --install                 only installs what the tests require
#
# The wheel is a debug build, which compiles faster; RINGLOAD_PYTHON_PROFILE=release builds the
# wheel that users get. With RINGLOAD_TEST_FULL, the sources are linted, old versions of numpy are
# tried, and the tests of the examples and of vLLM's loader run as well:
# python/requirements-examples.txt and vLLM (1.1 GB) are installed. Otherwise the plugin for vLLM is
# only tested with a small stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${RINGLOAD_PYTHON_PROFILE:-dev}
python=${PYTHON:-python3}
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work_dir=$target_dir/python
venv=$work_dir/venv
# Versions that make read-only arrays of DLPack, and the first that does not.
numpy_versions=(1.24.4 1.26.4 2.0.2 2.1.3)

step() {
    printf '\n== %s\n' "$*"
}

pip() {
    "$venv/bin/pip" "$1" --quiet --disable-pip-version-check "${@:2}"
}

# Creates the virtual environment, unless it exists for the same version of Python.
create_environment() {
    local wanted
    wanted=$("$python" --version)
    if [[ ! -f $venv/version || $(<"$venv/version") != "$wanted" ]]; then
        rm -rf "$venv"
        "$python" -m venv "$venv"
        printf '%s\n' "$wanted" >"$venv/version"
    fi
}

# Installs the requirements of a file, unless they are installed. The other arguments go to pip.
install_requirements() {
    local file=$1
    local installed=$venv/${file##*/}
    if ! cmp --silent "$file" "$installed"; then
        step "Python: $file"
        pip install "${@:2}" -r "$file"
        cp "$file" "$installed"
    fi
}

# Downloads the source distribution of the installed safetensors, for its tests.
download_safetensors() {
    local version folder
    version=$(sed -n 's/^safetensors==//p' python/requirements-test.txt)
    folder=$work_dir/safetensors-$version
    if [[ ! -d $folder ]]; then
        step "Python: the tests of safetensors $version"
        PATH=$venv/bin:$PATH pip download --no-deps --no-binary :all: --no-build-isolation \
            --dest "$work_dir" "safetensors==$version"
        tar --extract --gzip --directory "$work_dir" --file "$folder.tar.gz"
    fi
    export RINGLOAD_TEST_SAFETENSORS=$folder/bindings/python/tests
}

install() {
    create_environment
    install_requirements python/requirements-test.txt
    install_requirements python/requirements-safetensors.txt --no-deps
    download_safetensors
    if [[ -n ${RINGLOAD_TEST_FULL-} ]]; then
        install_requirements python/requirements-examples.txt
        install_requirements python/requirements-flows.txt
        # Without their dependencies, which are for GPUs and include another version of torch.
        install_requirements python/requirements-vllm.txt --no-deps
        install_requirements python/requirements-sglang.txt --no-deps
        export RINGLOAD_TEST_EXAMPLES=require RINGLOAD_TEST_VLLM=require RINGLOAD_TEST_SGLANG=require
        export RINGLOAD_TEST_FLOWS=require
        export RINGLOAD_TEST_LIBRARY=$target_dir/debug/libringload.so # tests/run.sh has compiled it
    fi
}

build_wheel() {
    step "Python: the wheel"
    local path=$venv/bin:$PATH
    if [[ -n ${RINGLOAD_TEST_BUILD-} ]]; then
        path=$PWD/tests/support/build-of-tests:$path
        export RINGLOAD_TEST_PATH=$PATH # of that build
    fi
    rm -rf "$work_dir/dist"
    MATURIN_PEP517_ARGS="--locked --profile $profile" PATH=$path \
        pip wheel --no-deps --no-build-isolation --wheel-dir "$work_dir/dist" ./python
    pip install --no-deps --force-reinstall "$work_dir"/dist/ringload-*.whl
}

lint() {
    step "Python: ruff, mypy and stubtest"
    "$venv/bin/ruff" format --check python
    "$venv/bin/ruff" check python
    local others=(examples perf/peers perf/gpu/steps perf/*.py tests/report_page.py)
    "$venv/bin/ruff" format --check --config python/pyproject.toml "${others[@]}"
    "$venv/bin/ruff" check --config python/pyproject.toml "${others[@]}"
    (cd python && "$venv/bin/mypy" --cache-dir "$work_dir/mypy")
    # Compares the stubs with the native module.
    (cd "$work_dir" && "$venv/bin/stubtest" --ignore-missing-stub ringload._ringload)
}

# Checks that arrays are writable with old versions of numpy, of which each has a folder of its own.
check_numpy_versions() {
    local version folder
    for version in "${numpy_versions[@]}"; do
        folder=$work_dir/numpy/$version
        step "Python: numpy $version"
        if [[ ! -d $folder/numpy ]]; then
            pip install --no-deps --only-binary :all: --target "$folder" "numpy==$version"
        fi
        PYTHONPATH=$folder "$venv/bin/python" python/tests/numpy_writable.py
    done
}

# Builds the stand-in for the CUDA driver, which tests load through LD_LIBRARY_PATH.
build_stand_in() {
    if [[ -z ${RINGLOAD_TEST_BUILD-} ]]; then
        step "Python: the stand-in for GPUs"
        cargo build --quiet --locked -p cuda-stand-in --lib
    fi
    local name
    mkdir -p "$work_dir/stand-in"
    for name in libcuda.so libcuda.so.1 libcufile.so libcufile.so.0; do
        ln -sf "$target_dir/debug/libcuda_stand_in.so" "$work_dir/stand-in/$name"
    done
    export RINGLOAD_TEST_STAND_IN=$work_dir/stand-in
}

install
[[ ${1-} != --install ]] || exit 0
build_stand_in
build_wheel
[[ -z ${RINGLOAD_TEST_FULL-} ]] || lint
[[ -z ${RINGLOAD_TEST_FULL-} ]] || check_numpy_versions
step "Python: pytest"
if (($# == 0)); then
    set -- --numprocesses 2 --dist loadfile --durations 10
fi
# Without a path, pytest would look for tests everywhere, also below target/.
[[ $* == *python/tests* ]] || set -- "$@" python/tests
# `python -m pytest` would import the package from the sources, which have no native module.
"$venv/bin/pytest" -c python/pyproject.toml --rootdir python -o cache_dir="$work_dir/pytest" \
    "$@"
