//! Compiles the kernels for the host, and names the library as programs look for it.

fn main() {
    println!("cargo::rerun-if-changed=kernels.cpp");
    println!("cargo::rerun-if-changed=../../kernels");
    let mut build = cc::Build::new();
    let is_clang = build.cpp(true).get_compiler().is_like_clang();
    let trap = match is_clang {
        true => "-fsanitize-trap=alignment",
        false => "-fsanitize-undefined-trap-on-error",
    };
    build
        .std("c++17")
        .include("../../kernels")
        // A misaligned access traps, as on a GPU; without the run-time library of the sanitizer.
        .flag("-fsanitize=alignment")
        .flag(trap)
        .file("kernels.cpp")
        .compile("kernels");
    // `nodelete`: its threads and exit handler outlive whoever loads it only to see whether it is
    // there.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1,-z,nodelete");
}
