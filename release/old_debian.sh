# Runs the packages in Debian 11, which has glibc 2.31 and Python 3.9. build.sh sources this file.

old_debian=$work/debian-11

# debootstrap needs root, and takes Debian's packages from its mirror.
install_old_debian() {
    [[ -e $old_debian.done ]] && return
    command -v debootstrap >/dev/null || fail "install debootstrap first"
    rm -rf "$old_debian"
    debootstrap --variant=minbase --include=python3-numpy,ca-certificates bullseye "$old_debian" \
        >"$work/debootstrap.log" || fail "debootstrap failed: $(tail -n 3 "$work/debootstrap.log")"
    touch "$old_debian.done"
}

in_old_debian() {
    chroot "$old_debian" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

# The wheel is unpacked instead of installed, as the system has no pip.
test_in_old_debian() {
    local inside=$old_debian/packages
    empty_directory "$inside/wheel"
    write_checkpoint "$inside/model/model.safetensors"
    tar --extract --directory "$inside" --file "$packages/$command_name.tar.gz"
    tar --extract --directory "$inside" --file "$packages/$library_name.tar.gz"
    python3 -m zipfile -e "$packages"/ringload-"$version"-*.whl "$inside/wheel"
    cp release/test_wheel.py "$inside"
    in_old_debian ldd --version | head -n 1
    in_old_debian "/packages/$command_name/bin/ringload" load /packages/model
    in_old_debian env PYTHONPATH=/packages/wheel python3 /packages/test_wheel.py /packages/model
    in_old_debian python3 -c "
import ctypes
library = ctypes.CDLL('/packages/$library_name/lib/$soname')
loader = ctypes.c_void_p()
assert library.ringload_loader_new(ctypes.byref(loader)) == 0
library.ringload_loader_free(loader)
print('loaded the C library')"
}
