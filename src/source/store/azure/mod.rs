//! Azure Blob Storage: `az://container/blob`, in the account that the environment names (`account`).
//!
//! Requests are authorized with the account's key, a shared access signature, or a token of
//! Microsoft Entra (`credentials`). Without any of these they are sent unauthorized, which public
//! containers accept. Tokens are never sent without TLS. Azure has no checksum of a whole blob, except
//! for an MD5 that the writer may give.

mod account;
mod classify;
mod credentials;
mod identity;
mod list;
mod sign;
#[cfg(test)]
mod tests;

use super::credential_cache::CredentialCache;
use super::listing::read_pages;
use super::reqsign_context::{add_token, context};
use super::requests::url;
use super::traits::{ListDepth, ListEntry, Store};
use crate::error::{Error, Result};
use crate::location::ObjectUri;
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::{Client, ErrorAction, ErrorResponse, RequestPolicy};
use account::{Account, Secret};
use async_trait::async_trait;
use classify::Authorization;
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use reqsign_azure_storage::Credential;
use std::sync::Arc;
use std::time::SystemTime;

/// The version of the API.
const VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");
/// The maximal size of a page: 5000 names of at most 1024 characters, with their properties.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// The variable that disables credentials.
const ANONYMOUS: &str = "RINGLOAD_AZURE_ANONYMOUS";

/// A container.
pub(super) struct Azure {
    uri: ObjectUri,
    account: Account,
    /// The reason why no token is obtained, if the configuration determines it.
    anonymous: Option<String>,
    credentials: CredentialCache<Credential>,
}

impl Azure {
    /// The container that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the environment names no account, or an
    /// unusable one.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let mut account = Account::of(options)?;
        let anonymous = if options.own_env_flag(ANONYMOUS)? {
            account.secret = None;
            Some(format!("{ANONYMOUS} is set"))
        } else if account.has_tls() {
            None
        } else {
            Some("no key or signature is set, and no token is sent without TLS".to_owned())
        };
        let credentials = CredentialCache::default();
        Ok(Self { uri: uri.with_key(""), account, anonymous, credentials })
    }

    /// The URL of the container.
    fn container_url(&self) -> String {
        // `$root` and `$web` are containers.
        let container = segment(self.uri.container()).replace("%24", "$");
        format!("{}/{container}", self.account.base)
    }

    /// How requests are authorized.
    fn authorization(&self) -> Authorization {
        match (&self.account.secret, &self.anonymous) {
            (Some(Secret::Key(_)), _) => Authorization::Key,
            (Some(Secret::Sas(_)), _) => Authorization::Sas,
            (None, Some(why)) => Authorization::Nothing(why.clone()),
            (None, None) => {
                self.credentials.nothing().map_or(Authorization::Token, Authorization::Nothing)
            }
        }
    }

    /// The URL of a page of the listing of `directory`.
    fn page_url(&self, directory: &str, depth: ListDepth, marker: Option<&str>) -> Result<Uri> {
        let prefix = segment(directory);
        let delimiter = if depth == ListDepth::Directory { "&delimiter=%2F" } else { "" };
        let marker = marker.map(|marker| format!("&marker={}", segment(marker)));
        let query = format!("restype=container&comp=list{delimiter}&prefix={prefix}");
        let marker = marker.unwrap_or_default();
        url(&format!("{}?{query}{marker}", self.container_url()), &self.uri)
    }
}

/// Parses `text`, a URL that holds the signature; the error does not repeat it.
fn signed_url(text: &str) -> Result<Uri> {
    text.parse().map_err(|_| {
        Error::invalid_input(
            "the shared access signature cannot be part of a URL; copy it as it was created",
        )
    })
}

#[async_trait]
impl RequestPolicy for Azure {
    async fn authorize(
        &self,
        client: &Arc<Client>,
        head: &mut Parts,
        now: SystemTime,
    ) -> Result<()> {
        head.headers.entry("x-ms-version").or_insert(VERSION);
        if head.headers.contains_key(header::AUTHORIZATION) {
            // A token that the caller gave as a header takes precedence.
            return Ok(());
        }
        match &self.account.secret {
            Some(Secret::Key(key)) => sign::sign(head, &self.account.name, key, now),
            Some(Secret::Sas(signature)) => {
                let joint = if head.uri.query().is_some() { '&' } else { '?' };
                head.uri = signed_url(&format!("{}{joint}{signature}", head.uri))?;
                Ok(())
            }
            None if self.anonymous.is_some() => Ok(()),
            None => {
                let token = |credential| match credential {
                    Credential::BearerToken { token, .. } => Some(token),
                    _ => None,
                };
                let context = context(client);
                add_token(head, &self.credentials, credentials::search(&context), token).await
            }
        }
    }

    fn classify(&self, response: &ErrorResponse) -> ErrorAction {
        classify::classify(response, self.uri.container(), &self.authorization())
    }

    fn renew_credentials(&self) {
        self.credentials.invalidate();
    }

    /// Requests are signed for their own URLs, and Azure does not redirect.
    fn follows_redirects(&self) -> bool {
        false
    }
}

#[async_trait]
impl Store for Azure {
    fn kind(&self) -> &'static str {
        "azure"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if key.is_empty() {
            let sentence = format!("{} names a container, but no blob in it", self.uri);
            return Err(Error::invalid_input(sentence));
        }
        url(&format!("{}/{}", self.container_url(), path(key)), &self.uri)
    }

    fn address(&self) -> String {
        self.account.base.clone()
    }

    async fn entries(
        &self,
        client: &Arc<Client>,
        key: &str,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        let doing = format!("list {}", self.uri.with_key(key));
        let url = |marker: Option<&str>| self.page_url(key, depth, marker);
        let (limit, not_a_listing) = (PAGE_BYTES_MAX, list::NOT_A_LISTING);
        read_pages(client, self, &doing, limit, not_a_listing, url, |response| {
            list::parse_page(response.body(), key, depth)
        })
        .await
        .map(Some)
    }
}
