# The crate, as `cargo publish` would upload it. build.sh sources this file.

crate_size_max_bytes=1500000

# cargo compiles the packages from their archives alone. It unpacks the archive of ringload-measure
# below its home directory, and would use what an earlier run unpacked there for the same version.
package_crate() {
    rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/src/-*/"ringload-measure-$version"
    if [[ $(git status --porcelain) ]]; then
        echo "The packages have changes that are not committed: do not publish them."
    fi
    cargo package --locked --allow-dirty --target-dir "$target_dir" -p ringload-measure -p ringload
    cp "$target_dir/package/ringload-$version.crate" \
        "$target_dir/package/ringload-measure-$version.crate" "$packages"
}

test_crate() {
    local archive=$packages/ringload-$version.crate size
    size=$(stat --format=%s "$archive")
    echo "ringload-$version.crate has $size bytes"
    ((size <= crate_size_max_bytes)) || fail "it may have $crate_size_max_bytes"
    if tar --list --gzip --file "$archive" | grep -E '^[^/]+/(tests|perf|release|python|examples)/'; then
        fail "these files are for the repository alone"
    fi
}
