//! `libringload.so`, built with its C functions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of `libringload.so`, which is built on the first call.
pub fn c_library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(build).clone()
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

/// Builds the library as `cargo build --features capi` does, in the target directory of this test.
fn build() -> PathBuf {
    let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--features", "capi", "--lib"]);
    command.args(["--message-format", "json-render-diagnostics", "--target-dir"]);
    command.arg(target_directory).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cannot build the library: {}", output.status);
    let messages = String::from_utf8(output.stdout).unwrap();
    let files = messages.lines().flat_map(|message| {
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        message["filenames"].as_array().cloned().unwrap_or_default()
    });
    let files: Vec<_> = files.filter_map(|file| file.as_str().map(PathBuf::from)).collect();
    let library = files.into_iter().find(|file| file.ends_with("libringload.so"));
    library.unwrap_or_else(|| panic!("cargo names no libringload.so: {messages}"))
}
