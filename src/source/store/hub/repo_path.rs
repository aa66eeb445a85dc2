//! A repository at a revision, and the Hub's URLs for it.

use crate::error::{Error, Result};
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::ServerOrigin;
use crate::source::store::requests::{base_url, url};
use crate::source::store::traits::ListDepth;
use http::Uri;
use percent_encoding::percent_decode_str;

const ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";

/// A repository at a revision, on the Hub at an endpoint.
pub(super) struct RepoPath {
    /// The base URL of the Hub.
    pub endpoint: String,
    /// The origin of the endpoint, the only one that gets the token.
    pub origin: ServerOrigin,
    /// `models`, `datasets` or `spaces`.
    kind: &'static str,
    /// `owner/repo`.
    name: String,
    /// The revision as git names it.
    pub revision: String,
}

impl RepoPath {
    /// The repository that `container`, of a location, names.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the endpoint is not `http(s)://host`.
    pub fn new(options: &RemoteOptions, container: &str) -> Result<Self> {
        let endpoint = options.endpoint.clone().or_else(|| options.env("HF_ENDPOINT"));
        let (endpoint, uri) =
            base_url(endpoint.as_deref().unwrap_or(ENDPOINT)).ok_or_else(|| {
                Error::invalid_input(
                    "the endpoint of the Hub is not of the form https://host[:port][/path]; check \
                     HF_ENDPOINT, or the option that sets it",
                )
            })?;
        let (kind, name, revision) = split(container);
        let revision = percent_decode_str(revision.unwrap_or(DEFAULT_REVISION)).decode_utf8_lossy();
        Ok(Self {
            endpoint: endpoint.to_owned(),
            origin: ServerOrigin::of(&uri),
            kind,
            name: name.to_owned(),
            revision: revision.into_owned(),
        })
    }

    /// The web page of the repository.
    pub fn page(&self) -> String {
        let Self { endpoint, kind, name, .. } = self;
        // The pages of models have no prefix.
        match *kind {
            "models" => format!("{endpoint}/{name}"),
            kind => format!("{endpoint}/{kind}/{name}"),
        }
    }

    /// The URL of the file `key` at `commit`.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn file_url(&self, commit: &str, key: &str) -> Result<Uri> {
        url(&format!("{}/resolve/{}/{}", self.page(), segment(commit), path(key)), &self.name)
    }

    /// The URL of the revision's commit.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn commit_url(&self) -> Result<Uri> {
        let Self { endpoint, kind, name, .. } = self;
        let revision = segment(&self.revision);
        url(&format!("{endpoint}/api/{kind}/{name}/revision/{revision}?expand=sha"), &self.name)
    }

    /// The URL of the listing of `directory` (`""`, or ending in `/`) at `commit`.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn list_url(&self, commit: &str, directory: &str, depth: ListDepth) -> Result<Uri> {
        let directory = path(directory.trim_end_matches('/'));
        let slash = if directory.is_empty() { "" } else { "/" };
        let query = if depth == ListDepth::Tree { "?recursive=true" } else { "" };
        let Self { endpoint, kind, name, .. } = self;
        url(
            &format!("{endpoint}/api/{kind}/{name}/tree/{commit}{slash}{directory}{query}"),
            &self.name,
        )
    }
}

/// Splits the `container` of a location into kind, name and, if given, revision.
pub(super) fn split(container: &str) -> (&'static str, &str, Option<&str>) {
    let (name, revision) = match container.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (container, None),
    };
    for kind in ["datasets", "spaces"] {
        let rest = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/'));
        // `datasets/x` alone is the repository `x` of the owner `datasets`.
        if let Some(name) = rest.filter(|rest| rest.contains('/')) {
            return (kind, name, revision);
        }
    }
    ("models", name, revision)
}

/// Whether `revision` is the full hash of a commit.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
