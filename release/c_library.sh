# The C library, with its headers and its file for pkg-config. build.sh sources this file.

library_name=libringload-$version-$triple
# Before version 1, a minor version may change the interface, so each has a name of its own.
soname=libringload.so.$(if [[ $version == 0.* ]]; then echo "${version%.*}"; else echo "${version%%.*}"; fi)

package_library() {
    local root=$work/$library_name
    empty_directory "$root"
    install -D --mode=644 "$binaries/libringload.so" "$root/lib/libringload.so.$version"
    strip --strip-debug "$root/lib/libringload.so.$version"
    with_tools patchelf --set-soname "$soname" "$root/lib/libringload.so.$version"
    ln -s "libringload.so.$version" "$root/lib/$soname"
    ln -s "$soname" "$root/lib/libringload.so"
    install -D --mode=644 --target-directory="$root/include" src/capi/*.h
    mkdir -p "$root/lib/pkgconfig"
    sed "s/@VERSION@/$version/" release/ringload.pc.in >"$root/lib/pkgconfig/ringload.pc"
    copy_documentation "$root" share/doc/libringload
    pack "$root"
}

# Compiles the example of docs/c.md with what pkg-config says, and loads a checkpoint with it.
test_library() {
    local test=$work/test-library
    local root=$test/$library_name
    empty_directory "$test"
    tar --extract --directory "$test" --file "$packages/$library_name.tar.gz"
    check_glibc "$root/lib/libringload.so"
    write_checkpoint "$test/model/model.safetensors"
    sed -n '/^```c$/,/^```$/ { /^```/d; p }' docs/c.md | sed "s|/models/llama-8b|$test/model|" \
        >"$test/load.c"
    # shellcheck disable=SC2016
    in_empty_environment PKG_CONFIG_PATH="$root/lib/pkgconfig" bash -euc '
        pkg-config --exact-version="$3" ringload
        cc -Wall -Werror -o "$1/load" "$1/load.c" $(pkg-config --cflags --libs ringload)
        LD_LIBRARY_PATH=$2/lib "$1/load" | tee "$1/output"
    ' bash "$test" "$root" "$version"
    [[ $(<"$test/output") == "weight: F32, 8 bytes" ]] || fail "the C program loaded something else"
    readelf --dynamic "$test/load" | grep -q "NEEDED.*\[$soname\]" || fail "it does not need $soname"
}
