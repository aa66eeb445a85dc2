//! Compiles the kernels for the host, and names the library as programs look for it.

fn main() {
    println!("cargo::rerun-if-changed=kernels.cpp");
    println!("cargo::rerun-if-changed=../../kernels");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include("../../kernels")
        .file("kernels.cpp")
        .compile("kernels");
    // `nodelete`: its threads and exit handler outlive whoever loads it only to see whether it is
    // there.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1,-z,nodelete");
}
