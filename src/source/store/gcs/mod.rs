//! Google Cloud Storage: `gs://bucket/key`.
//!
//! Objects are read through the XML API (`https://storage.googleapis.com/bucket/key`), whose responses
//! have an ETag and which honours `If-Match`. Listings and checksums come from the JSON API of the
//! same host. Requests are authorized with Google's application default credentials (`credentials`).
//! Without credentials they are sent unauthorized, which public buckets accept.
//!
//! `--endpoint`, `STORAGE_EMULATOR_HOST` and `CLOUD_STORAGE_EMULATOR_ENDPOINT` name an emulator to use
//! instead of the service. Tokens are sent to Google's hosts only. Where an emulator does not know
//! the paths of the XML API, objects are read through the JSON API.

mod classify;
mod credentials;
mod list;
#[cfg(test)]
mod tests;

use super::credential_cache::CredentialCache;
use super::listing::read_pages;
use super::reqsign_context::{add_token, context};
use super::requests::{self, base_url, get, url};
use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::{Client, ErrorAction, ErrorResponse, RequestPolicy};
use async_trait::async_trait;
use http::{Uri, header};
use reqsign_google::Credential;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

const GOOGLE: &str = "https://storage.googleapis.com";
/// The variables that name an emulator; the first one that is set counts.
const EMULATOR_VARIABLES: [&str; 2] = ["STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT"];
/// The variables that disable credentials.
const ANONYMOUS: &str = "RINGLOAD_GCS_ANONYMOUS";
const ANONYMOUS_OF_RUNAI: &str = "RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS";
/// The maximal size of a page. Emulators send the whole listing as one page.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// A bucket.
pub(super) struct Gcs {
    uri: ObjectUri,
    /// Scheme and host, without a slash at the end.
    base: String,
    /// Whether `base` is Google's, so that tokens may be sent there.
    is_google: bool,
    /// The reason why requests are sent without credentials, if the configuration determines it.
    anonymous: Option<String>,
    credentials: CredentialCache<Credential>,
    /// Whether objects are read through the JSON API.
    by_json: AtomicBool,
}

impl Gcs {
    /// The bucket that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an endpoint that is not a URL.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let base = base(options)?;
        let is_google = is_google(&base);
        let chosen = match options.own_env_flag(ANONYMOUS)? {
            true => Some(ANONYMOUS),
            false => Some(ANONYMOUS_OF_RUNAI).filter(|name| options.env_flag(name) == Some(true)),
        };
        let anonymous = match chosen {
            Some(name) => Some(format!("{name} is set")),
            None if !is_google => Some("they are sent to Google's servers only".to_owned()),
            None => None,
        };
        let (uri, by_json) = (uri.with_key(""), AtomicBool::new(false));
        let credentials = CredentialCache::default();
        Ok(Self { uri, base, is_google, anonymous, credentials, by_json })
    }

    /// The base URL of the JSON API for the objects of the bucket.
    fn json_url(&self) -> String {
        format!("{}/storage/v1/b/{}/o", self.base, segment(self.uri.container()))
    }

    /// The reason why requests are sent without credentials; `None` if they have credentials.
    fn without_credentials(&self) -> Option<String> {
        self.anonymous.clone().or_else(|| self.credentials.nothing())
    }
}

/// Scheme and host of the service or of an emulator.
fn base(options: &RemoteOptions) -> Result<String> {
    let variable = || EMULATOR_VARIABLES.iter().find_map(|name| options.env(name));
    let Some(mut endpoint) = options.endpoint.clone().or_else(variable) else {
        return Ok(GOOGLE.to_owned());
    };
    if !endpoint.contains("://") {
        endpoint = format!("http://{}", endpoint.trim());
    }
    base_url(&endpoint).map(|(url, _)| url.to_owned()).ok_or_else(|| {
        Error::invalid_input("the endpoint for gs:// is not a URL; write it as http://host:port")
    })
}

fn is_google(base: &str) -> bool {
    let uri = base.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    uri.scheme_str() == Some("https") && host.ends_with(".googleapis.com")
}

#[async_trait]
impl RequestPolicy for Gcs {
    async fn authorize(
        &self,
        client: &Arc<Client>,
        head: &mut http::request::Parts,
        _: SystemTime,
    ) -> Result<()> {
        // A token that the caller gave as a header takes precedence.
        if self.anonymous.is_some() || head.headers.contains_key(header::AUTHORIZATION) {
            return Ok(());
        }
        let token = |credential: Credential| Some(credential.token?.access_token);
        let context = context(client);
        add_token(head, &self.credentials, credentials::search(&context), token).await
    }

    fn classify(&self, response: &ErrorResponse) -> ErrorAction {
        let without = self.without_credentials();
        let action = classify::classify(response, self.uri.container(), without);
        let missing = matches!(action, ErrorAction::Fail(ErrorKind::NotFound, _));
        if missing && !self.is_google && !self.by_json.swap(true, Ordering::Relaxed) {
            return ErrorAction::RetryOnce("paths of the JSON API");
        }
        action
    }

    fn renew_credentials(&self) {
        self.credentials.invalidate();
    }
}

#[async_trait]
impl Store for Gcs {
    fn kind(&self) -> &'static str {
        "gcs"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if key.is_empty() {
            let sentence = format!("{} names a bucket, but no object in it", self.uri);
            return Err(Error::invalid_input(sentence));
        }
        match self.by_json.load(Ordering::Relaxed) {
            true => url(&format!("{}/{}?alt=media", self.json_url(), segment(key)), &self.uri),
            false => {
                let bucket = segment(self.uri.container());
                url(&format!("{}/{bucket}/{}", self.base, path(key)), &self.uri)
            }
        }
    }

    fn address(&self) -> String {
        self.base.clone()
    }

    async fn entries(
        &self,
        client: &Arc<Client>,
        key: &str,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        let doing = format!("list {}", self.uri.with_key(key));
        let page_url = |token: Option<&str>| {
            url(&format!("{}?{}", self.json_url(), list::query(key, depth, token)), &self.uri)
        };
        let (limit, not_a_listing) = (PAGE_BYTES_MAX, list::NOT_A_LISTING);
        read_pages(client, self, &doing, limit, not_a_listing, page_url, |response| {
            list::parse_page(response.body(), key, depth)
        })
        .await
        .map(Some)
    }

    async fn checksum(&self, client: &Arc<Client>, key: &str) -> Result<Option<Checksum>> {
        let doing = format!("read the checksum of {}", self.uri.with_key(key));
        let url = format!("{}/{}?fields=crc32c", self.json_url(), segment(key));
        let url = requests::url(&url, &self.uri)?;
        let response = client.fetch(self, &doing, 1 << 20, || Ok(get(url.clone()))).await?;
        Ok(list::checksum(response.body()))
    }
}
