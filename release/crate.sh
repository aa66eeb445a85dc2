# The crates, as `cargo publish` would upload them. build.sh sources this file.

crate_size_max_bytes=1500000

# cargo compiles the packages from their archives alone. It unpacks the archive of ringload-measure
# below its home directory, and would use what an earlier run unpacked there for the same version.
package_crate() {
    rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/src/-*/"ringload-measure-$version"
    if [[ $(git status --porcelain) ]]; then
        echo "The packages have changes that are not committed: do not publish them."
    fi
    cargo package --locked --allow-dirty --target-dir "$target_dir" -p ringload-measure -p ringload \
        -p ringload-candle
    cp "$target_dir/package/ringload-$version.crate" \
        "$target_dir/package/ringload-measure-$version.crate" "$(archive_of candle)" "$packages"
}

# The archive that cargo makes of src/glue/$1, below the target directory $2.
archive_of() {
    local manifest=src/glue/$1/Cargo.toml
    echo "${2:-$target_dir}/package/$(in_package name "$manifest")-$(in_package version "$manifest").crate"
}

# The field $1 of the package of the manifest $2.
in_package() {
    sed -n "/^\\[package\\]/,/^\\[/ s/^$1 = \"\\(.*\\)\"/\\1/p" "$2"
}

# Those that are workspaces of their own. Until ringload is on crates.io, they are compiled with what was
# unpacked from the archives of package_crate.
package_glue() {
    local unpacked=$target_dir/package
    package_glue_in candle-0.10 "$target_dir/glue" "$unpacked"
    package_glue_in burn "$target_dir/burn" "$unpacked"
}

# package_glue_in FOLDER TARGET_DIR UNPACKED
package_glue_in() {
    cargo package --allow-dirty --target-dir "$2" --manifest-path "src/glue/$1/Cargo.toml" \
        --config "patch.crates-io.ringload.path=\"$3/ringload-$version\"" \
        --config "patch.crates-io.ringload-measure.path=\"$3/ringload-measure-$version\""
    cp "$(archive_of "$1" "$2")" "$packages"
}

test_crate() {
    local archive=$packages/ringload-$version.crate size
    size=$(stat --format=%s "$archive")
    echo "ringload-$version.crate has $size bytes"
    ((size <= crate_size_max_bytes)) || fail "it may have $crate_size_max_bytes"
    if tar --list --gzip --file "$archive" | grep -E '^[^/]+/(tests|perf|release|python|examples)/'; then
        fail "these files are for the repository alone"
    fi
    test_glue
}

# The crate for candle 0.10 has the sources of the one for 0.11, and not links to them.
test_glue() {
    local folder archive
    for folder in candle candle-0.10 burn; do
        archive=$packages/$(basename "$(archive_of "$folder")")
        tar --list --verbose --gzip --file "$archive" | grep '^-.*/src/lib\.rs$' >/dev/null ||
            fail "$archive has no src/lib.rs"
    done
}
