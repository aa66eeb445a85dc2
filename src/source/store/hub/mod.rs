//! The Hugging Face Hub, with the environment, the token and the cache of `huggingface_hub`.
//!
//! ```text
//! place    repository, revision, endpoint -> URLs      refusal  what the Hub's error codes mean
//! token    HF_TOKEN, token file                        cache    what was downloaded before
//! tree     listings, with the checksums of large files
//! ```
//!
//! A revision is resolved to a commit once, before the first object is opened, and everything is
//! asked for at that commit: the shards of one checkpoint never come from two. The next checkpoint
//! has a repository of its own. What the local cache holds of the commit is read from there.
//! `HF_HUB_OFFLINE=1` asks the Hub for nothing; where the Hub cannot say the commit, the one that
//! the cache has for the revision is used, with a warning.
//!
//! Large files are on a CDN, whereto the Hub redirects; the token stays behind.

mod cache;
mod place;
mod refusal;
mod token;
mod tree;

use super::parts::get;
use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::options::RemoteOptions;
use crate::source::http::{
    BoxFuture, Client, ErrorAction, ErrorResponse, RequestPolicy, ServerOrigin,
};
use cache::Cache;
use http::{HeaderValue, Uri, header};
use place::{Place, is_commit};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::OnceCell;
use tree::Listed;

/// The most that is read of what the Hub says about a repository.
const ABOUT_BYTES_MAX: usize = 64 << 20;

/// A repository of the Hub, at a revision.
pub(super) struct Hub {
    uri: ObjectUri,
    place: Place,
    token: Option<HeaderValue>,
    cache: Cache,
    /// Nothing is asked of the Hub.
    offline: bool,
    /// Nothing is taken from the cache: the Hub's checksums are wanted.
    verify: bool,
    pinned: OnceCell<Pinned>,
    /// The directories that were listed.
    trees: Mutex<HashMap<String, Arc<Vec<Listed>>>>,
}

/// The commit of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    commit: String,
    /// Whether only the cache knows it, so that listings are the cache's, too.
    from_cache: bool,
}

impl Hub {
    /// The repository that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where endpoint or token cannot be used.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
        Ok(Self {
            uri: uri.with_key(""),
            place: Place::new(options, uri.container())?,
            token: token::find(options)?,
            cache: Cache::new(options, uri.container()),
            offline: offline.iter().any(|name| options.env_flag(name) == Some(true)),
            verify: options.verify,
            pinned: OnceCell::new(),
            trees: Mutex::default(),
        })
    }

    async fn pin(&self, client: &Arc<Client>) -> Result<Pinned> {
        if self.offline && self.verify {
            let sentence = "HF_HUB_OFFLINE is set, but the checksums to verify against are the \
                            Hub's; unset it, or do not verify";
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        let revision = self.place.revision();
        let cached = self.cache.commit(revision).filter(|_| !self.verify);
        let from_cache = cached.map(|commit| Pinned { commit, from_cache: true });
        if self.offline {
            return from_cache.ok_or_else(|| self.not_cached(""));
        }
        if is_commit(revision) {
            return Ok(Pinned { commit: revision.to_owned(), from_cache: false });
        }
        match (self.ask_commit(client).await, from_cache) {
            (Ok(commit), _) => Ok(Pinned { commit, from_cache: false }),
            (Err(error), Some(pinned)) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(location = %self.uri, %error, commit = pinned.commit,
                    "the Hub does not say what the revision is; it is taken from the local cache");
                Ok(pinned)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The commit that the revision stands for now.
    async fn ask_commit(&self, client: &Arc<Client>) -> Result<String> {
        #[derive(Deserialize)]
        struct About {
            sha: String,
        }
        let doing = format!("find the commit of {}", self.uri);
        let url = self.place.about()?;
        let answer = client.fetch(self, &doing, ABOUT_BYTES_MAX, || Ok(get(url.clone()))).await?;
        let about = serde_json::from_slice::<About>(answer.body()).ok();
        about.map(|about| about.sha).filter(|sha| is_commit(sha)).ok_or_else(|| {
            let sentence = format!(
                "cannot {doing}: what {} answers is not what the Hub would; check HF_ENDPOINT",
                self.place.endpoint()
            );
            Error::new(ErrorKind::Unsupported, sentence)
        })
    }

    /// What is in `directory` (`""`, or ending in `/`), asked for once. `None` where there is no such
    /// directory.
    async fn tree(
        &self,
        client: &Arc<Client>,
        directory: &str,
    ) -> Result<Option<Arc<Vec<Listed>>>> {
        if let Some(tree) = self.trees().get(directory) {
            return Ok(Some(Arc::clone(tree)));
        }
        let doing = format!("list {}", self.uri.with_key(directory));
        let first = self.place.tree(self.commit(), directory)?;
        match tree::read(client, self, &doing, first).await {
            Ok(tree) => {
                let tree = Arc::new(tree);
                self.trees().insert(directory.to_owned(), Arc::clone(&tree));
                Ok(Some(tree))
            }
            // The repository itself is always there, if it is.
            Err(error) if error.kind() == ErrorKind::NotFound && !directory.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that is below `directory`.
    async fn whole_tree(&self, client: &Arc<Client>, directory: &str) -> Result<Vec<Listed>> {
        let doing = format!("list {}", self.uri.with_key(directory));
        let first = format!("{}?recursive=true", self.place.tree(self.commit(), directory)?);
        let first = first.parse().map_err(|error| {
            let sentence = format!("cannot {doing}: its path is too long for a URL");
            Error::new(ErrorKind::InvalidInput, sentence).with_source(error)
        })?;
        tree::read(client, self, &doing, first).await
    }

    fn trees(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Vec<Listed>>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The commit, once it is known; until then the revision.
    fn commit(&self) -> &str {
        self.pinned.get().map_or(self.place.revision(), |pinned| &pinned.commit)
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

impl RequestPolicy for Hub {
    fn authorize<'a>(
        &'a self,
        _: &'a Arc<Client>,
        head: &'a mut http::request::Parts,
        _: SystemTime,
    ) -> BoxFuture<'a, Result<()>> {
        if let Some(token) = &self.token
            && ServerOrigin::of(&head.uri) == *self.place.origin()
        {
            head.headers.entry(header::AUTHORIZATION).or_insert(token.clone());
        }
        Box::pin(async { Ok(()) })
    }

    fn classify(&self, refusal: &ErrorResponse) -> ErrorAction {
        refusal::judge(refusal, &self.place, self.token.is_some())
    }
}

impl Store for Hub {
    fn kind(&self) -> &'static str {
        "hub"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if self.offline {
            return Err(self.not_cached(key));
        }
        self.place.file(self.commit(), key)
    }

    fn address(&self) -> String {
        self.place.endpoint().to_owned()
    }

    fn prepare<'a>(&'a self, client: &'a Arc<Client>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.pinned.get_or_try_init(|| self.pin(client)).await?;
            Ok(())
        })
    }

    fn local(&self, key: &str) -> Option<PathBuf> {
        if self.verify { None } else { self.cache.file(self.commit(), key) }
    }

    fn entries<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
        depth: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>> {
        Box::pin(async move {
            if self.pinned.get().is_some_and(|pinned| pinned.from_cache) {
                return Ok(Some(self.cache.entries(self.commit(), key, depth)));
            }
            let listed = match depth {
                ListDepth::Directory => self.tree(client, key).await?,
                ListDepth::Tree => Some(Arc::new(self.whole_tree(client, key).await?)),
            };
            let files = listed.iter().flat_map(|files| files.iter());
            Ok(Some(files.filter_map(|file| file.entry_in(key, depth)).collect()))
        })
    }

    fn checksum<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>> {
        Box::pin(async move {
            let directory = &key[..key.rfind('/').map_or(0, |slash| slash + 1)];
            let tree = self.tree(client, directory).await?;
            let mut files = tree.iter().flat_map(|tree| tree.iter());
            let sum = files.find(|entry| entry.path == key).and_then(Listed::sha256);
            Ok(sum.map(Checksum::Sha256))
        })
    }
}

#[cfg(test)]
mod tests;
