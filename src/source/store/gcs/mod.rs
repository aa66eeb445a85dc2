//! Google Cloud Storage: `gs://bucket/key`.
//!
//! Objects are read through the XML API (`https://storage.googleapis.com/bucket/key`): its answers
//! carry an ETag, which it honours in `If-Match`. Listings and checksums come from the JSON API of
//! the same host. Credentials are Google's application default ones (`credentials`); where there are
//! none, requests go without, as public buckets want it.
//!
//! An emulator takes the place of the service where `--endpoint`, `STORAGE_EMULATOR_HOST` or
//! `CLOUD_STORAGE_EMULATOR_ENDPOINT` name one. Tokens are never sent to hosts that are not Google's.
//! An emulator that does not know the XML API's paths is asked by those of the JSON API.

mod credentials;
mod list;
mod refusal;
#[cfg(test)]
mod tests;

use super::keyring::Keyring;
use super::parts::{bearer, get, is_base, url};
use super::signing;
use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::{BoxFuture, Client, ErrorAction, ErrorResponse, RequestPolicy};
use http::{HeaderValue, Uri, header};
use reqsign_google::Credential;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

const GOOGLE: &str = "https://storage.googleapis.com";
/// What names an emulator, the first one that is set.
const EMULATOR_VARIABLES: [&str; 2] = ["STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT"];
/// What says that requests go without credentials.
const ANONYMOUS_VARIABLES: [&str; 2] =
    ["RINGLOAD_GCS_ANONYMOUS", "RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS"];
/// A page of a listing; emulators do not know pages and send all at once.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// A bucket.
pub(super) struct Gcs {
    uri: ObjectUri,
    /// Scheme and host, without a slash at its end.
    base: String,
    /// Whether `base` is Google's own: only there are tokens sent.
    is_google: bool,
    /// Why requests go without credentials, where that was decided beforehand.
    anonymous: Option<String>,
    keyring: Keyring<Credential>,
    /// Whether objects are asked for by the paths of the JSON API.
    by_json: AtomicBool,
}

impl Gcs {
    /// The bucket that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an endpoint that is no URL.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let base = base(options)?;
        let is_google = is_google(&base);
        let chosen = ANONYMOUS_VARIABLES.iter().find(|name| options.env_flag(name) == Some(true));
        let anonymous = match chosen {
            Some(name) => Some(format!("{name} says so")),
            None if !is_google => Some("they are for Google's own servers only".to_owned()),
            None => None,
        };
        Ok(Self {
            uri: uri.with_key(""),
            base,
            is_google,
            anonymous,
            keyring: Keyring::default(),
            by_json: AtomicBool::new(false),
        })
    }

    fn bucket(&self) -> String {
        segment(self.uri.container())
    }

    /// The JSON API's name of the object `key`.
    fn resource(&self, key: &str) -> String {
        format!("{}/storage/v1/b/{}/o/{}", self.base, self.bucket(), segment(key))
    }

    async fn token(&self, client: &Arc<Client>) -> Result<Option<HeaderValue>> {
        if self.anonymous.is_some() {
            return Ok(None);
        }
        let context = signing::context(client);
        let credential = self.keyring.get(credentials::search(&context)).await?;
        let Some(token) = credential.and_then(|credential| credential.token) else {
            return Ok(None);
        };
        let sentence = "Google's token is no header's value";
        let value = bearer(&token.access_token);
        value.map(Some).ok_or_else(|| Error::new(ErrorKind::InvalidInput, sentence))
    }

    /// Why requests go without credentials, if they do.
    fn without(&self) -> Option<String> {
        self.anonymous.clone().or_else(|| self.keyring.nothing())
    }
}

/// Scheme and host of the service or of an emulator.
fn base(options: &RemoteOptions) -> Result<String> {
    let named = options.endpoint.clone().or_else(|| {
        let mut set = EMULATOR_VARIABLES.iter().filter_map(|name| options.env(name));
        set.next()
    });
    let Some(named) = named else {
        return Ok(GOOGLE.to_owned());
    };
    let url = match named.contains("://") {
        true => named.trim().trim_end_matches('/').to_owned(),
        false => format!("http://{}", named.trim().trim_end_matches('/')),
    };
    match url.parse().is_ok_and(|uri| is_base(&uri)) {
        true => Ok(url),
        false => Err(Error::new(
            ErrorKind::InvalidInput,
            "the endpoint for gs:// is no URL; write it as http://host:port",
        )),
    }
}

fn is_google(base: &str) -> bool {
    let uri = base.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    uri.scheme_str() == Some("https") && host.ends_with(".googleapis.com")
}

impl RequestPolicy for Gcs {
    fn authorize<'a>(
        &'a self,
        client: &'a Arc<Client>,
        head: &'a mut http::request::Parts,
        _: SystemTime,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // A token that the caller gave as a header wins.
            if !head.headers.contains_key(header::AUTHORIZATION)
                && let Some(token) = self.token(client).await?
            {
                head.headers.insert(header::AUTHORIZATION, token);
            }
            Ok(())
        })
    }

    fn classify(&self, refusal: &ErrorResponse) -> ErrorAction {
        let verdict = refusal::judge(refusal, self.uri.container(), self.without());
        let missing = matches!(verdict, ErrorAction::Fail(ErrorKind::NotFound, _));
        if missing && !self.is_google && !self.by_json.swap(true, Ordering::Relaxed) {
            return ErrorAction::RetryOnce("paths of the JSON API");
        }
        verdict
    }

    fn renew_credentials(&self) {
        self.keyring.forget();
    }
}

impl Store for Gcs {
    fn kind(&self) -> &'static str {
        "gcs"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if key.is_empty() {
            let sentence = format!("{} names a bucket and no object in it", self.uri);
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        match self.by_json.load(Ordering::Relaxed) {
            true => url(&format!("{}?alt=media", self.resource(key))),
            false => url(&format!("{}/{}/{}", self.base, self.bucket(), path(key))),
        }
    }

    fn address(&self) -> String {
        self.base.clone()
    }

    fn entries<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
        depth: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>> {
        Box::pin(async move {
            let doing = format!("list {}", self.uri.with_key(key));
            let (mut entries, mut pages) = (Vec::new(), list::Pages::default());
            while let Some(query) = pages.next_query(key, depth) {
                let text = format!("{}/storage/v1/b/{}/o?{query}", self.base, self.bucket());
                let ask = || Ok(get(url(&text)?));
                let answer = client.fetch(self, &doing, PAGE_BYTES_MAX, ask).await?;
                pages.read(answer.body(), key, depth, &mut entries)?;
            }
            Ok(Some(entries))
        })
    }

    fn checksum<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>> {
        Box::pin(async move {
            let doing = format!("read the checksum of {}", self.uri.with_key(key));
            let text = format!("{}?fields=crc32c", self.resource(key));
            let ask = || Ok(get(url(&text)?));
            let answer = client.fetch(self, &doing, 1 << 20, ask).await?;
            Ok(list::checksum(answer.body()))
        })
    }
}
