//! The stand-in for the CUDA driver and cuFile (`tests/cuda-stand-in`), built and put where the
//! loader finds it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::OnceLock;

/// What programs look for: cudarc the names without a version, others those with one.
const NAMES: [&str; 4] = ["libcuda.so", "libcuda.so.1", "libcufile.so", "libcufile.so.0"];

/// The folder to put into `LD_LIBRARY_PATH` of a child. The library is built on the first call.
pub fn stand_in() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder_of(&build())).clone()
}

/// Builds the library where this test was built; cargo lets one process at a time do so.
fn build() -> PathBuf {
    let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "cuda-stand-in", "--lib"]);
    command.args(["--message-format", "json-render-diagnostics", "--target-dir"]);
    command.arg(target_directory).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cannot build the stand-in: {}", output.status);
    let messages = String::from_utf8(output.stdout).unwrap();
    let library = messages.lines().find_map(library);
    library.unwrap_or_else(|| panic!("cargo names no library: {messages}"))
}

/// The library that a message of cargo's says was built, if it does.
fn library(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).unwrap();
    let is_ours = message["target"]["name"] == "cuda_stand_in";
    let files = message["filenames"].as_array().filter(|_| is_ours)?;
    let files = files.iter().filter_map(|file| file.as_str());
    files.filter(|file| file.ends_with(".so")).map(PathBuf::from).next()
}

/// A folder with links of all names to `library`. Other test processes may do the same right now:
/// each link appears at once, or replaces its like.
fn folder_of(library: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
    fs::create_dir_all(&folder).unwrap();
    for name in NAMES {
        let unfinished = folder.join(format!("{name}.{}", id()));
        symlink(library, &unfinished).unwrap();
        fs::rename(unfinished, folder.join(name)).unwrap();
    }
    folder
}
