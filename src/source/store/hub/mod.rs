//! The Hugging Face Hub, with the environment, the token and the cache of `huggingface_hub`.
//!
//! ```text
//! repo_path  repository, revision, endpoint -> URLs    classify  error responses
//! token      HF_TOKEN, token file                      cache     files downloaded before
//! list       listings, with the checksums of large files
//! ```
//!
//! The revision is resolved to a commit once, before the first object is opened, and every request
//! names that commit, so that all shards of a checkpoint come from the same one. Each checkpoint
//! has a `Hub` of its own. Files of the commit that are in the local Hub cache are read from there.
//! `HF_HUB_OFFLINE=1` disables all requests; files are then verified by the names of their blobs. Where the Hub cannot resolve the revision, the commit
//! that the cache has for it is used, with a warning.
//!
//! Large files are on a CDN, to which the Hub redirects; the token is not sent there.

mod cache;
mod classify;
mod list;
mod repo_path;
#[cfg(test)]
mod tests;
mod token;

use super::requests::get;
use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::options::RemoteOptions;
use crate::source::http::{Client, ErrorAction, ErrorResponse, RequestPolicy, ServerOrigin};
use crate::sync::Mutex;
use async_trait::async_trait;
use cache::HubCache;
use http::{HeaderValue, Uri, header};
use list::TreeEntry;
use repo_path::{RepoPath, is_commit};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OnceCell;

/// The maximal size of the Hub's description of a repository.
const DESCRIPTION_BYTES_MAX: usize = 64 << 20;

/// A repository of the Hub, at a revision.
pub(super) struct Hub {
    uri: ObjectUri,
    repo: RepoPath,
    token: Option<HeaderValue>,
    cache: HubCache,
    /// Whether requests to the Hub are disabled.
    offline: bool,
    /// Whether bytes are verified, against the Hub's checksums unless it is offline.
    verify: bool,
    resolved: OnceCell<ResolvedCommit>,
    /// The entries of the directories that were listed.
    directories: Mutex<HashMap<String, Arc<Vec<TreeEntry>>>>,
}

/// The commit that the revision stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ResolvedCommit {
    commit: String,
    /// Whether only the cache knows the commit, so that listings come from the cache too.
    from_cache: bool,
}

impl Hub {
    /// The repository that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an unusable endpoint or token.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
        Ok(Self {
            uri: uri.with_key(""),
            repo: RepoPath::new(options, uri.container())?,
            token: token::find(options)?,
            cache: HubCache::new(options, uri.container()),
            offline: offline.iter().any(|name| options.env_flag(name) == Some(true)),
            verify: options.verify,
            resolved: OnceCell::new(),
            directories: Mutex::default(),
        })
    }

    async fn resolve(&self, client: &Arc<Client>) -> Result<ResolvedCommit> {
        let revision = &self.repo.revision;
        let cached = self.cache.commit(revision).filter(|_| self.uses_cache());
        let cached = cached.map(|commit| ResolvedCommit { commit, from_cache: true });
        if self.offline {
            return cached.ok_or_else(|| self.not_cached(""));
        }
        if is_commit(revision) {
            return Ok(ResolvedCommit { commit: revision.clone(), from_cache: false });
        }
        match (self.request_commit(client).await, cached) {
            (Ok(commit), _) => Ok(ResolvedCommit { commit, from_cache: false }),
            (Err(error), Some(cached)) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(location = %self.uri, %error, commit = cached.commit,
                    "the Hub cannot resolve the revision; the commit in the local cache is used");
                Ok(cached)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The commit that the revision stands for now.
    async fn request_commit(&self, client: &Arc<Client>) -> Result<String> {
        #[derive(Deserialize)]
        struct Description {
            sha: String,
        }
        let doing = format!("find the commit of {}", self.uri);
        let url = self.repo.commit_url()?;
        let build = || Ok(get(url.clone()));
        let response = client.fetch(self, &doing, DESCRIPTION_BYTES_MAX, build).await?;
        let description = serde_json::from_slice::<Description>(response.body()).ok();
        let commit = description.map(|description| description.sha).filter(|sha| is_commit(sha));
        commit.ok_or_else(|| {
            let sentence = format!(
                "cannot {doing}: the response of {} is not that of a Hub; check HF_ENDPOINT",
                self.repo.endpoint
            );
            Error::new(ErrorKind::Unsupported, sentence)
        })
    }

    /// The entries of `directory` (`""`, or ending in `/`), which are requested once. `None` if
    /// there is no such directory.
    async fn directory(
        &self,
        client: &Arc<Client>,
        directory: &str,
    ) -> Result<Option<Arc<Vec<TreeEntry>>>> {
        if let Some(entries) = self.directories.lock().get(directory) {
            return Ok(Some(Arc::clone(entries)));
        }
        match self.request_list(client, directory, ListDepth::Directory).await {
            Ok(entries) => {
                let entries = Arc::new(entries);
                self.directories.lock().insert(directory.to_owned(), Arc::clone(&entries));
                Ok(Some(entries))
            }
            // The root directory exists in every repository.
            Err(error) if error.kind() == ErrorKind::NotFound && !directory.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn request_list(
        &self,
        client: &Arc<Client>,
        directory: &str,
        depth: ListDepth,
    ) -> Result<Vec<TreeEntry>> {
        let doing = format!("list {}", self.uri.with_key(directory));
        let first = self.repo.list_url(self.commit(), directory, depth)?;
        list::read(client, self, &self.repo.origin, &doing, first).await
    }

    /// The commit, or the revision until it is resolved.
    fn commit(&self) -> &str {
        self.resolved.get().map_or(&self.repo.revision, |resolved| &resolved.commit)
    }

    /// Whether files of the cache are read: not where the Hub can be asked for their checksums.
    fn uses_cache(&self) -> bool {
        self.offline || !self.verify
    }

    fn not_cached(&self, key: &str) -> Error {
        let sentence = format!(
            "HF_HUB_OFFLINE is set, and {} is not in the local Hub cache {}; unset it, or download \
             the file first",
            self.uri.with_key(key),
            self.cache.folder().display()
        );
        Error::new(ErrorKind::NotFound, sentence)
    }
}

#[async_trait]
impl RequestPolicy for Hub {
    async fn authorize(
        &self,
        _: &Arc<Client>,
        head: &mut http::request::Parts,
        _: SystemTime,
    ) -> Result<()> {
        if let Some(token) = &self.token
            && ServerOrigin::of(&head.uri) == self.repo.origin
        {
            head.headers.entry(header::AUTHORIZATION).or_insert(token.clone());
        }
        Ok(())
    }

    fn classify(&self, response: &ErrorResponse) -> ErrorAction {
        classify::classify(response, &self.repo, self.token.is_some())
    }
}

#[async_trait]
impl Store for Hub {
    fn kind(&self) -> &'static str {
        "hub"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if self.offline {
            return Err(self.not_cached(key));
        }
        self.repo.file_url(self.commit(), key)
    }

    fn address(&self) -> String {
        self.repo.endpoint.clone()
    }

    async fn prepare(&self, client: &Arc<Client>) -> Result<()> {
        self.resolved.get_or_try_init(|| self.resolve(client)).await?;
        Ok(())
    }

    fn local(&self, key: &str) -> Option<PathBuf> {
        self.cache.file(self.commit(), key).filter(|_| self.uses_cache())
    }

    async fn entries(
        &self,
        client: &Arc<Client>,
        key: &str,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        if self.resolved.get().is_some_and(|resolved| resolved.from_cache) {
            return Ok(Some(self.cache.entries(self.commit(), key, depth)));
        }
        let entries = match depth {
            ListDepth::Directory => self.directory(client, key).await?.unwrap_or_default(),
            ListDepth::Tree => Arc::new(self.request_list(client, key, depth).await?),
        };
        Ok(Some(entries.iter().filter_map(|entry| entry.listed_in(key, depth)).collect()))
    }

    async fn checksum(&self, client: &Arc<Client>, key: &str) -> Result<Option<Checksum>> {
        let directory = &key[..key.rfind('/').map_or(0, |slash| slash + 1)];
        let entries = self.directory(client, directory).await?.unwrap_or_default();
        let entry = entries.iter().find(|entry| entry.path == key);
        Ok(entry.and_then(TreeEntry::sha256).map(Checksum::Sha256))
    }
}
