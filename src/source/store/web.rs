//! Web servers: `http://` and `https://`. The user and password of a URL are sent as basic
//! authorization; bearer tokens and other headers are options of the load. Web servers cannot list
//! and have no checksums.

use super::requests::secret_value;
use super::traits::Store;
use crate::error::{Error, Result};
use crate::location::ObjectUri;
use crate::source::http::{Client, RequestPolicy};
use async_trait::async_trait;
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
    pub fn new(uri: &ObjectUri) -> Self {
        let (user, host) = match uri.container().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, uri.container()),
        };
        let authorization = user.and_then(|user| {
            let user: Vec<u8> = percent_decode_str(user).collect();
            secret_value(&format!("Basic {}", STANDARD.encode(user)))
        });
        Self { base: format!("{}://{host}/", uri.scheme().as_str()), authorization }
    }
}

#[async_trait]
impl RequestPolicy for Web {
    async fn authorize(
        &self,
        _: &Arc<Client>,
        head: &mut http::request::Parts,
        _: SystemTime,
    ) -> Result<()> {
        if let Some(authorization) = &self.authorization {
            head.headers.entry(header::AUTHORIZATION).or_insert(authorization.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Web {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        format!("{}{key}", self.base).parse().map_err(|error| {
            let sentence = format!("the path after {} is not a URL; percent-encode it", self.base);
            Error::invalid_input(sentence).with_source(error)
        })
    }
}
