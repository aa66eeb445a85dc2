//! Builds ringload's Python package, and the library that Run:ai's package can load.
//!
//! Both are release builds. Cargo checks whether the library is up to date. pip would build a wheel
//! each time, so the package is installed again only when a source file has changed.

use super::Places;
use super::commands::{Why, run};
use super::environment::{Environment, install_folder};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of the package.
pub fn package_folder(places: &Places) -> PathBuf {
    places.peers.join("ringload")
}

/// Builds and installs the package.
pub fn package(
    places: &Places,
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Result<(), Why>> {
    let made_of = format!("{}\n{}", environment.python.display(), sources(&places.root)?);
    install_folder(environment, &package_folder(places), &made_of, progress, |pip| {
        pip.env("MATURIN_PEP517_ARGS", "--locked --profile release")
            .env("CARGO_TARGET_DIR", &places.target)
            .arg(places.root.join("python"))
    })
}

/// The path of the library.
pub fn library_file(places: &Places) -> PathBuf {
    places.target.join("release/libringload.so")
}

/// Builds the library.
pub fn library(places: &Places, progress: &mut dyn FnMut(&str)) -> Result<(), Why> {
    progress("building libringload.so, if it is not up to date");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    cargo.args(["--package", "ringload-capi", "--features", "capi"]);
    cargo.arg("--target-dir").arg(&places.target).current_dir(&places.root);
    run(&mut cargo).map(|_| ())
}

/// A text that changes when a source file of package or library does: the number of files and the
/// time of the last change.
pub fn sources(root: &Path) -> anyhow::Result<String> {
    let mut seen = Seen { files: 0, bytes: 0, changed: UNIX_EPOCH };
    for part in ["src", "kernels", "python", "Cargo.toml", "Cargo.lock"] {
        seen.look(&root.join(part))?;
    }
    let changed = seen.changed.duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(format!("{} files, {} bytes, changed {changed}", seen.files, seen.bytes))
}

struct Seen {
    files: u64,
    bytes: u64,
    changed: SystemTime,
}

impl Seen {
    fn look(&mut self, path: &Path) -> std::io::Result<()> {
        let Ok(metadata) = path.symlink_metadata() else {
            return Ok(());
        };
        if metadata.is_dir() {
            // Compiled files of Python are not sources.
            if path.ends_with("__pycache__") {
                return Ok(());
            }
            return path.read_dir()?.try_for_each(|entry| self.look(&entry?.path()));
        }
        self.files += 1;
        self.bytes += metadata.len();
        self.changed = self.changed.max(metadata.modified()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_with_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("src/deep")).unwrap();
        std::fs::write(root.join("src/deep/a.rs"), "one").unwrap();
        let first = sources(root).unwrap();
        assert_eq!(sources(root).unwrap(), first);

        std::fs::create_dir(root.join("src/__pycache__")).unwrap();
        std::fs::write(root.join("src/__pycache__/a.pyc"), "made").unwrap();
        std::fs::write(root.join("README.md"), "words").unwrap();
        assert_eq!(sources(root).unwrap(), first);

        std::fs::write(root.join("src/deep/b.rs"), "").unwrap();
        let second = sources(root).unwrap();
        assert_ne!(second, first);
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let file = std::fs::File::options().append(true).open(root.join("src/deep/a.rs")).unwrap();
        file.set_modified(later).unwrap();
        assert_ne!(sources(root).unwrap(), second);
    }
}
