//! A web server: `http://` and `https://`. The user and password of a URL are sent as basic
//! authorization; bearer tokens and other headers are options of the load.

use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::source::http::{BoxFuture, Client, RequestPolicy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use std::time::SystemTime;

/// A web server.
pub(super) struct Web {
    base: String,
    authorization: Option<HeaderValue>,
}

impl Web {
    /// The server that `uri` names.
    pub fn new(uri: &ObjectUri) -> Result<Self> {
        let (user, host) = match uri.container().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, uri.container()),
        };
        let authorization = user.map(basic).transpose()?;
        Ok(Self { base: format!("{}://{host}/", uri.scheme().as_str()), authorization })
    }
}

/// The basic authorization of the `user:password` of a URL.
fn basic(user: &str) -> Result<HeaderValue> {
    let user: Vec<u8> = percent_decode_str(user).collect();
    let text = format!("Basic {}", STANDARD.encode(user));
    let mut value = HeaderValue::try_from(text)
        .map_err(|e| Error::new(ErrorKind::InvalidInput, "a URL's user").with_source(e))?;
    value.set_sensitive(true);
    Ok(value)
}

impl RequestPolicy for Web {
    fn authorize<'a>(
        &'a self,
        _: &'a Arc<Client>,
        head: &'a mut http::request::Parts,
        _: SystemTime,
    ) -> BoxFuture<'a, Result<()>> {
        if let Some(authorization) = &self.authorization {
            head.headers.entry(header::AUTHORIZATION).or_insert(authorization.clone());
        }
        Box::pin(async { Ok(()) })
    }
}

impl Store for Web {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        format!("{}{key}", self.base).parse().map_err(|error| {
            let sentence =
                format!("{} and what follows is not a URL; percent-encode it", self.base);
            Error::new(ErrorKind::InvalidInput, sentence).with_source(error)
        })
    }

    fn entries<'a>(
        &'a self,
        _: &'a Arc<Client>,
        _: &'a str,
        _: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>> {
        Box::pin(async { Ok(None) })
    }

    fn checksum<'a>(
        &'a self,
        _: &'a Arc<Client>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>> {
        Box::pin(async { Ok(None) })
    }
}
