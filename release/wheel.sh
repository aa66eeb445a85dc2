# The wheel for CPython 3.9 and later. build.sh sources this file.

# auditwheel refuses the wheel if it needs a newer glibc or other libraries.
package_wheel() {
    local dist=$work/wheel
    empty_directory "$dist"
    with_tools maturin build --locked --release --strip --auditwheel skip --compatibility linux \
        --target "$triple" --manifest-path python/Cargo.toml --out "$dist/built"
    complete_metadata "$dist"
    with_tools auditwheel show "$dist"/packed/ringload-*.whl
    with_tools auditwheel repair --plat "manylinux_${glibc/./_}_x86_64" --wheel-dir "$packages" \
        "$dist"/packed/ringload-*.whl
}

# Adds the licences, and takes the links to files from the description, which is README.md.
complete_metadata() {
    local metadata=$1/unpacked/ringload-$version/ringload-$version.dist-info
    with_tools wheel unpack --dest "$1/unpacked" "$1"/built/ringload-*.whl
    mkdir -p "$1/packed" "$metadata/licenses"
    copy_licences "$metadata/licenses"
    python3 release/pages.py --plain "$metadata/METADATA"
    with_tools wheel pack --dest-dir "$1/packed" "$1/unpacked/ringload-$version"
}

# Runs in the oldest and the newest Python that are installed here, and in the default one.
test_wheel() {
    local python
    write_checkpoint "$work/test-wheel/model/model.safetensors"
    for python in $(test_pythons); do
        test_wheel_in "$python"
    done
}

test_pythons() {
    local minor found=()
    for minor in 9 10 11 12 13 14; do
        if python3.$minor --version >/dev/null 2>&1; then
            found+=("$(python3.$minor -c 'import sys; print(sys.executable)')")
        fi
    done
    found+=("$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')")
    printf '%s\n' "${found[0]}" "${found[-2]:-${found[0]}}" "${found[-1]}" | sort -u
}

# torch is large: the load with the drop-in runs where tests/python.sh has installed torch.
test_wheel_in() {
    local venv=$work/test-wheel/venv with_torch=$target_dir/python/venv/lib
    empty_directory "$venv"
    "$1" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check numpy
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps \
        "$packages"/ringload-"$version"-*.whl
    "$venv/bin/python" --version
    in_empty_environment "$venv/bin/python" release/test_wheel.py "$work/test-wheel/model"
    with_torch=$with_torch/python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages
    if [[ -d $with_torch/torch ]]; then
        in_empty_environment PYTHONPATH="$venv/$(cd "$venv" && echo lib/python*/site-packages):$with_torch" \
            "$1" release/test_wheel.py --torch "$work/test-wheel/model"
    fi
}
