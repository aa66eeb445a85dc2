//! The shared libraries of the workspace, which tests load or link.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The path of `file`. `tests/run.sh` has built it with everything else and sets
/// `RINGLOAD_TEST_BUILD`; otherwise `cargo build` with `arguments` builds it where this test was
/// built.
pub fn shared_library(file: &str, arguments: &[&str]) -> PathBuf {
    // CARGO_TARGET_TMPDIR is target/tmp.
    let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    if env::var_os("RINGLOAD_TEST_BUILD").is_some() {
        return target_directory.join("debug").join(file);
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--message-format", "json-render-diagnostics"]);
    command.args(arguments).arg("--target-dir").arg(target_directory);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cannot build {file}: {}", output.status);
    let messages = String::from_utf8(output.stdout).unwrap();
    let files = messages.lines().flat_map(|message| {
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        message["filenames"].as_array().cloned().unwrap_or_default()
    });
    let mut files = files.filter_map(|built| built.as_str().map(PathBuf::from));
    let library = files.find(|built| built.ends_with(file));
    library.unwrap_or_else(|| panic!("cargo names no {file}: {messages}"))
}
