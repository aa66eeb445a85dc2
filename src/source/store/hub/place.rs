//! A repository at a revision, and the Hub's URLs for it.

use crate::error::{Error, ErrorKind, Result};
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::ServerOrigin;
use crate::source::store::parts::is_base;
use http::Uri;
use percent_encoding::percent_decode_str;

const ENDPOINT: &str = "https://huggingface.co";

/// What a revision that is not given stands for.
const MAIN: &str = "main";

/// A repository at a revision, on the Hub at an endpoint.
pub(super) struct Place {
    endpoint: String,
    origin: ServerOrigin,
    /// `models`, `datasets` or `spaces`.
    kind: &'static str,
    /// `owner/repo`.
    name: String,
    revision: String,
}

impl Place {
    /// The place that `container`, of a location, names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the endpoint is no `http(s)://host`.
    pub fn new(options: &RemoteOptions, container: &str) -> Result<Self> {
        let endpoint = options.endpoint.clone().or_else(|| options.env("HF_ENDPOINT"));
        let endpoint = endpoint.as_deref().unwrap_or(ENDPOINT).trim().trim_end_matches('/');
        let uri = endpoint.parse::<Uri>().ok().filter(is_base).ok_or_else(|| {
            let sentence = "the endpoint of the Hub is not of the form https://host[:port][/path]; \
                            check HF_ENDPOINT, or the option that gives it";
            Error::new(ErrorKind::InvalidInput, sentence)
        })?;
        let (kind, name, revision) = split(container);
        let revision = percent_decode_str(revision.unwrap_or(MAIN)).decode_utf8_lossy();
        Ok(Self {
            endpoint: endpoint.to_owned(),
            origin: ServerOrigin::of(&uri),
            kind,
            name: name.to_owned(),
            revision: revision.into_owned(),
        })
    }

    /// The revision as git has it.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The Hub's base URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whom the token is for.
    pub fn origin(&self) -> &ServerOrigin {
        &self.origin
    }

    /// The page of the repository.
    pub fn page(&self) -> String {
        let Self { endpoint, kind, name, .. } = self;
        // Models have no prefix there.
        match *kind {
            "models" => format!("{endpoint}/{name}"),
            kind => format!("{endpoint}/{kind}/{name}"),
        }
    }

    /// The URL of the file `key` at `commit`.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn file(&self, commit: &str, key: &str) -> Result<Uri> {
        let commit = segment(commit);
        let key = path(key);
        self.url(format!("{}/resolve/{commit}/{key}", self.page()))
    }

    /// The URL that tells the revision's commit.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn about(&self) -> Result<Uri> {
        let revision = segment(&self.revision);
        let Self { endpoint, kind, name, .. } = self;
        self.url(format!("{endpoint}/api/{kind}/{name}/revision/{revision}?expand=sha"))
    }

    /// The URL of the listing of `directory` (`""`, or ending in `/`) at `commit`.
    ///
    /// # Errors
    /// When it is too long for a URL.
    pub fn tree(&self, commit: &str, directory: &str) -> Result<Uri> {
        let directory = path(directory.trim_end_matches('/'));
        let slash = if directory.is_empty() { "" } else { "/" };
        let Self { endpoint, kind, name, .. } = self;
        self.url(format!("{endpoint}/api/{kind}/{name}/tree/{commit}{slash}{directory}"))
    }

    fn url(&self, text: String) -> Result<Uri> {
        text.parse().map_err(|error| {
            let sentence = format!("a path in {} makes no URL", self.page());
            Error::new(ErrorKind::InvalidInput, sentence).with_source(error)
        })
    }
}

/// Kind, name and, if it is given, revision of the `container` of a location.
pub(super) fn split(container: &str) -> (&'static str, &str, Option<&str>) {
    let (name, revision) = match container.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (container, None),
    };
    for kind in ["datasets", "spaces"] {
        let rest = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/'));
        // `datasets/x` alone is the repository `x` of an owner of that name.
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
