//! Makes connections with TLS: those whose records are opened in [`tls`](super::tls), and those that
//! rustls serves.
//!
//! Each connection is tried in the first way, which offers the server AES-GCM alone. If the server
//! wants another cipher, it refuses the handshake, and another connection is made with all that rustls
//! supports. If that leads to another cipher, the server is remembered, so that its next connections
//! are made in the second way at once.

use super::socket::Socket;
use super::stream::Stream;
use super::tls::{TlsConfiguration, TlsStream, is_aes_gcm};
use crate::sync::Mutex;
use http::Uri;
use http::uri::Authority;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error};
use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections with TLS over those of `C`.
pub(super) struct SecureConnector<C> {
    plain: C,
    config: Arc<ClientConfig>,
    rustls: HttpsConnector<C>,
    /// The servers that want what only rustls supports.
    by_rustls: Mutex<HashSet<Authority>>,
}

impl<C> SecureConnector<C>
where
    C: Service<Uri, Response = Socket, Error = io::Error> + Clone,
    C::Future: Future<Output = io::Result<Socket>> + Send + 'static,
{
    /// A connector whose connections below rustls come from `below_rustls`, and all others from
    /// `plain`.
    pub fn new(configuration: TlsConfiguration, plain: C, below_rustls: C) -> Self {
        let rustls = HttpsConnectorBuilder::new().with_tls_config(configuration.by_rustls);
        let rustls = rustls.https_only().enable_http1().wrap_connector(below_rustls);
        let (config, by_rustls) = (configuration.taken_over, Mutex::default());
        Self { plain, config, rustls, by_rustls }
    }

    /// Connects to the server of `to`.
    ///
    /// # Errors
    /// Those of connecting; I/O errors that contain a [`rustls::Error`].
    pub async fn connect(&self, to: &Uri) -> Result<Stream, BoxError> {
        let authority = to.authority();
        if !authority.is_some_and(|server| self.by_rustls.lock().contains(server)) {
            match self.take_over(to).await {
                Err(error) if wants_other(&error) => {
                    tracing::debug!(%error, "TLS is left to rustls");
                }
                Err(error) => return Err(error.into()),
                Ok(stream) => return Ok(Stream::Https(Box::new(stream))),
            }
        }
        let stream = self.rustls.clone().call(to.clone()).await?;
        if let (Some(server), MaybeHttpsStream::Https(tls)) = (authority, &stream) {
            let suite = tls.inner().get_ref().1.negotiated_cipher_suite();
            if suite.is_some_and(|suite| !is_aes_gcm(suite.suite())) {
                self.by_rustls.lock().insert(server.clone());
            }
        }
        Ok(Stream::Rustls(Box::new(stream)))
    }

    async fn take_over(&self, to: &Uri) -> io::Result<TlsStream> {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let socket = self.plain.clone().call(to.clone()).await?.into_inner();
        TlsStream::connect(Arc::clone(&self.config), name, socket).await
    }
}

/// Whether the server, or the taking over of the connection, refuses what was agreed on.
fn wants_other(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(
        error,
        Some(
            Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity
            ) | Error::PeerIncompatible(_)
                | Error::General(_)
        )
    )
}
