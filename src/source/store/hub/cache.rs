//! The local cache of `huggingface_hub`. It is read, but never written.
//!
//! ```text
//! models--owner--repo/refs/<revision>              the commit's hash
//!                     snapshots/<commit>/<path>    the file, usually a link into blobs/
//! ```

use super::repo_path::{is_commit, split};
use crate::options::RemoteOptions;
use crate::source::store::traits::{ListDepth, ListEntry};
use crate::sys::read_small_text;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The cached files of a repository.
pub(super) struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// The cache of the repository that `container`, of a location, names.
    pub fn new(options: &RemoteOptions, container: &str) -> Self {
        let (kind, name, _) = split(container);
        let folder = format!("{kind}--{}", name.replace('/', "--"));
        Self { folder: root(options).unwrap_or_default().join(folder) }
    }

    /// The folder of the repository, which may not exist.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit to which `revision` pointed when one of its files was last downloaded.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let commit = match is_commit(revision) {
            true => revision.to_owned(),
            false => {
                let path = below(self.folder.join("refs"), revision)?;
                read_small_text(&path, "reference").ok()?
            }
        };
        let commit = commit.trim();
        let is_cached = is_commit(commit) && self.snapshot(commit).is_dir();
        is_cached.then(|| commit.to_owned())
    }

    /// The path of the file `key` at `commit`, if it is cached.
    pub fn file(&self, commit: &str, key: &str) -> Option<PathBuf> {
        let path = below(self.snapshot(commit), key)?;
        (is_commit(commit) && path.is_file()).then_some(path)
    }

    /// The cached files of `directory` at `commit`.
    pub fn entries(&self, commit: &str, directory: &str, depth: ListDepth) -> Vec<ListEntry> {
        let mut files = Vec::new();
        let root = below(self.snapshot(commit), directory);
        let mut pending: Vec<_> = root.into_iter().map(|path| (path, String::new())).collect();
        while let Some((path, prefix)) = pending.pop() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let (path, name) = (entry.path(), format!("{prefix}{name}"));
                // Follows links: files are links to blobs.
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {
                        files.push(ListEntry { name, len_bytes: metadata.len() });
                    }
                    Ok(metadata) if metadata.is_dir() && depth == ListDepth::Tree => {
                        pending.push((path, format!("{name}/")));
                    }
                    _ => {}
                }
            }
        }
        files
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }
}

/// `directory` joined with `path`; `None` if the result is not below `directory`.
fn below(directory: PathBuf, path: &str) -> Option<PathBuf> {
    let is_below = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| directory.join(path))
}

/// The directory of all cached repositories.
fn root(options: &RemoteOptions) -> Option<PathBuf> {
    env_path(options, "HF_HUB_CACHE")
        .or_else(|| env_path(options, "HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(home(options)?.join("hub")))
}

/// The home directory of Hugging Face's libraries.
pub(super) fn home(options: &RemoteOptions) -> Option<PathBuf> {
    env_path(options, "HF_HOME").or_else(|| {
        let caches = env_path(options, "XDG_CACHE_HOME")
            .or_else(|| Some(PathBuf::from(options.env("HOME")?).join(".cache")))?;
        Some(caches.join("huggingface"))
    })
}

/// The path in the variable `name`, with the home directory for a leading `~`.
pub(super) fn env_path(options: &RemoteOptions, name: &str) -> Option<PathBuf> {
    let path = options.env(name)?;
    match (path.strip_prefix("~/"), options.env("HOME")) {
        (Some(rest), Some(home)) => Some(Path::new(&home).join(rest)),
        _ => Some(PathBuf::from(path)),
    }
}
