//! The local cache of `huggingface_hub`: read, never written.
//!
//! ```text
//! models--owner--repo/refs/<revision>              the commit's hash
//!                     snapshots/<commit>/<path>    the file, mostly a link into blobs/
//! ```

use super::place::{is_commit, split};
use crate::options::RemoteOptions;
use crate::source::store::{ListDepth, ListEntry};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What the cache may hold of a repository.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Of the repository that `container`, of a location, names.
    pub fn new(options: &RemoteOptions, container: &str) -> Self {
        let (kind, name, _) = split(container);
        let folder = format!("{kind}--{}", name.replace('/', "--"));
        Self { folder: root(options).unwrap_or_default().join(folder) }
    }

    /// Where it is, or would be.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit that `revision` was when something of it was downloaded.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let commit = match is_commit(revision) {
            true => revision.to_owned(),
            false => fs::read_to_string(below(self.folder.join("refs"), revision)?).ok()?,
        };
        let commit = commit.trim();
        let is_there = is_commit(commit) && self.snapshot(commit).is_dir();
        is_there.then(|| commit.to_owned())
    }

    /// The file `key` at `commit`, if the cache holds it.
    pub fn file(&self, commit: &str, key: &str) -> Option<PathBuf> {
        let path = below(self.snapshot(commit), key)?;
        (is_commit(commit) && path.is_file()).then_some(path)
    }

    /// The files that the cache holds of `directory` at `commit`.
    pub fn entries(&self, commit: &str, directory: &str, depth: ListDepth) -> Vec<ListEntry> {
        let mut entries = Vec::new();
        let mut ahead: Vec<_> = below(self.snapshot(commit), directory)
            .map(|path| (path, String::new()))
            .into_iter()
            .collect();
        while let Some((path, prefix)) = ahead.pop() {
            let found = fs::read_dir(path).ok().into_iter().flatten().filter_map(Result::ok);
            for file in found {
                let Ok(name) = file.file_name().into_string() else { continue };
                let (path, name) = (file.path(), format!("{prefix}{name}"));
                // Files are links to blobs; directories are none.
                match fs::metadata(&path) {
                    Ok(about) if about.is_file() => {
                        entries.push(ListEntry { name, len_bytes: about.len() });
                    }
                    Ok(about) if about.is_dir() && depth == ListDepth::Tree => {
                        ahead.push((path, format!("{name}/")));
                    }
                    _ => {}
                }
            }
        }
        entries
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }
}

/// `path` below `directory`, if it stays there.
fn below(directory: PathBuf, path: &str) -> Option<PathBuf> {
    let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    stays.then(|| directory.join(path))
}

/// The directory of all repositories.
fn root(options: &RemoteOptions) -> Option<PathBuf> {
    let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter();
    match named.filter_map(|name| options.env(name)).next() {
        Some(path) => Some(expanded(options, &path)),
        None => Some(home(options)?.join("hub")),
    }
}

/// The directory of everything that is Hugging Face's.
pub(super) fn home(options: &RemoteOptions) -> Option<PathBuf> {
    if let Some(path) = options.env("HF_HOME") {
        return Some(expanded(options, &path));
    }
    let caches = match options.env("XDG_CACHE_HOME") {
        Some(path) => expanded(options, &path),
        None => PathBuf::from(options.env("HOME")?).join(".cache"),
    };
    Some(caches.join("huggingface"))
}

/// `path` with a `~` in front replaced.
pub(super) fn expanded(options: &RemoteOptions, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), options.env("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}
