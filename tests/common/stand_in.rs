//! The stand-in for the CUDA driver and cuFile (`tests/cuda-stand-in`), built and put where the
//! loader finds it.

use super::shared_library::shared_library;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::OnceLock;

/// What programs look for: cudarc the names without a version, others those with one.
const NAMES: [&str; 4] = ["libcuda.so", "libcuda.so.1", "libcufile.so", "libcufile.so.0"];

/// The folder to put into `LD_LIBRARY_PATH` of a child. The library is built on the first call.
pub fn stand_in() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder_of(&library())).clone()
}

fn library() -> PathBuf {
    shared_library("libcuda_stand_in.so", &["--package", "cuda-stand-in", "--lib"])
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
