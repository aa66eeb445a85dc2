//! `libringload.so`, built with its C functions.

use super::shared_library::shared_library;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `libringload.so`, which is built on the first call.
pub fn c_library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY
        .get_or_init(|| shared_library("libringload.so", &["--features", "capi", "--lib"]))
        .clone()
}

/// Compiles the C program `source` against the headers, links it with the library, and writes it to
/// `program`. The library has no SONAME, so the program loads it from the path it was linked with.
#[track_caller]
pub fn compile_c(source: &Path, program: &Path) {
    let mut command = Command::new("cc");
    command.args(["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-g", "-pthread"]);
    command.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capi"));
    command.arg("-o").arg(program).arg(source).arg(c_library()).arg("-ldl");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
