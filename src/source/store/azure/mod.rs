//! Azure Blob Storage: `az://container/blob`, in the account that the environment names (`account`).
//!
//! Requests are authorized with the account's key, a shared access signature, or a token of
//! Microsoft Entra (`credentials`); where there is none of these they go without, as public
//! containers want it. Tokens are never sent without TLS.

mod account;
mod credentials;
mod identity;
mod list;
mod refusal;
mod sign;
#[cfg(test)]
mod tests;

use super::keyring::Keyring;
use super::parts::{bearer, entry, get, url};
use super::signing;
use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::http::{BoxFuture, Client, ErrorAction, ErrorResponse, RequestPolicy};
use account::{Account, Secret};
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use list::Page;
use refusal::Use;
use reqsign_azure_storage::Credential;
use std::sync::Arc;
use std::time::SystemTime;

/// The version of the API that is spoken.
const VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");
/// 5000 names of at most 1024 characters, with their properties.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// Says that requests go without credentials.
const ANONYMOUS: &str = "RINGLOAD_AZURE_ANONYMOUS";

/// A container.
pub(super) struct Azure {
    uri: ObjectUri,
    account: Account,
    /// Why no token is looked for, where that was decided beforehand.
    anonymous: Option<String>,
    keyring: Keyring<Credential>,
}

impl Azure {
    /// The container that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the environment names no account, or what
    /// cannot be used.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri) -> Result<Self> {
        let mut account = Account::of(options)?;
        let anonymous = if options.env_flag(ANONYMOUS) == Some(true) {
            account.secret = None;
            Some(format!("{ANONYMOUS} says so"))
        } else if account.is_confidential() {
            None
        } else {
            Some("neither key nor signature is set, and no token is sent without TLS".to_owned())
        };
        Ok(Self { uri: uri.with_key(""), account, anonymous, keyring: Keyring::default() })
    }

    fn container(&self) -> String {
        // `$root` and `$web` are containers, too.
        segment(self.uri.container()).replace("%24", "$")
    }

    async fn token(&self, client: &Arc<Client>) -> Result<Option<HeaderValue>> {
        if self.anonymous.is_some() {
            return Ok(None);
        }
        let context = signing::context(client);
        let credential = self.keyring.get(credentials::search(&context)).await?;
        let Some(Credential::BearerToken { token, .. }) = credential else {
            return Ok(None);
        };
        let sentence = "the token of Microsoft Entra is no header's value";
        bearer(&token).map(Some).ok_or_else(|| Error::new(ErrorKind::InvalidInput, sentence))
    }

    fn using(&self) -> Use {
        match (&self.account.secret, &self.anonymous) {
            (Some(Secret::Key(_)), _) => Use::Key,
            (Some(Secret::Sas(_)), _) => Use::Sas,
            (None, Some(why)) => Use::Nothing(why.clone()),
            (None, None) => self.keyring.nothing().map_or(Use::Token, Use::Nothing),
        }
    }

    async fn sign(&self, client: &Arc<Client>, head: &mut Parts, now: SystemTime) -> Result<()> {
        head.headers.entry("x-ms-version").or_insert(VERSION);
        if head.headers.contains_key(header::AUTHORIZATION) {
            // A token that the caller gave as a header wins.
            return Ok(());
        }
        match &self.account.secret {
            Some(Secret::Key(key)) => sign::sign(head, &self.account.name, key, now),
            Some(Secret::Sas(signature)) => {
                let joint = if head.uri.query().is_some() { '&' } else { '?' };
                head.uri = signed_url(&format!("{}{joint}{signature}", head.uri))?;
                Ok(())
            }
            None => {
                if let Some(token) = self.token(client).await? {
                    head.headers.insert(header::AUTHORIZATION, token);
                }
                Ok(())
            }
        }
    }

    /// The URL of a page of the listing of `key`, from `marker` on.
    fn page_url(&self, key: &str, depth: ListDepth, marker: &str) -> Result<Uri> {
        let (prefix, marker) = (segment(key), segment(marker));
        let delimiter = if depth == ListDepth::Directory { "&delimiter=%2F" } else { "" };
        let mut query = format!("restype=container&comp=list{delimiter}&prefix={prefix}");
        if !marker.is_empty() {
            query = format!("{query}&marker={marker}");
        }
        url(&format!("{}/{}?{query}", self.account.base, self.container()))
    }
}

/// `text`, which holds the signature, as a URL; the error does not hold it.
fn signed_url(text: &str) -> Result<Uri> {
    text.parse().map_err(|_| {
        let sentence = "the shared access signature cannot stand in a URL; copy it as it was made";
        Error::new(ErrorKind::InvalidInput, sentence)
    })
}

impl RequestPolicy for Azure {
    fn authorize<'a>(
        &'a self,
        client: &'a Arc<Client>,
        head: &'a mut Parts,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.sign(client, head, now))
    }

    fn classify(&self, refusal: &ErrorResponse) -> ErrorAction {
        refusal::judge(refusal, self.uri.container(), &self.using())
    }

    fn renew_credentials(&self) {
        self.keyring.forget();
    }

    /// Requests are signed for their own URLs, and Azure does not redirect.
    fn follows_redirects(&self) -> bool {
        false
    }
}

impl Store for Azure {
    fn kind(&self) -> &'static str {
        "azure"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        if key.is_empty() {
            let sentence = format!("{} names a container and no blob in it", self.uri);
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        url(&format!("{}/{}/{}", self.account.base, self.container(), path(key)))
    }

    fn address(&self) -> String {
        self.account.base.clone()
    }

    fn entries<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
        depth: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>> {
        Box::pin(async move {
            let doing = format!("list {}", self.uri.with_key(key));
            let (mut entries, mut marker) = (Vec::new(), String::new());
            loop {
                let ask = || Ok(get(self.page_url(key, depth, &marker)?));
                let answer = client.fetch(self, &doing, PAGE_BYTES_MAX, ask).await?;
                let page = Page::read(answer.body())?;
                let blobs = page.blobs.iter();
                entries.extend(blobs.filter_map(|(name, bytes)| entry(key, name, *bytes, depth)));
                match page.marker {
                    None => return Ok(Some(entries)),
                    Some(next) if next == marker => {
                        let sentence = "a page of the server's listing leads to itself";
                        return Err(Error::new(ErrorKind::Io, sentence));
                    }
                    Some(next) => marker = next,
                }
            }
        })
    }

    /// None: Azure keeps an MD5 at most, of what the writer says.
    fn checksum<'a>(
        &'a self,
        _: &'a Arc<Client>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>> {
        Box::pin(async { Ok(None) })
    }
}
