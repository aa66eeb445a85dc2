//! The ways in which an attempt of a request can fail.

use super::addresses::Unresolved;
use super::connect::{BoxError, ProxyFailure};
use super::error_response::{CLIENT_CERTIFICATE, ErrorResponse};
use super::origin::ServerOrigin;
use crate::error::{Error, ErrorKind};
use std::error::Error as StdError;
use std::io;

/// The result of one attempt.
pub(crate) type Attempted<T> = std::result::Result<T, AttemptError>;

/// The failure of an attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// There was no response, an incomplete response, or a wrong one.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server responded with an error.
    #[error("the server answered {}", .0.status)]
    Response(Box<ErrorResponse>),
    /// An error that a retry would not change.
    #[error(transparent)]
    Final(#[from] Error),
}

impl AttemptError {
    /// Whether there was no file for another connection.
    pub fn is_out_of_files(&self) -> bool {
        matches!(self, Self::Transport(error) if error.reason == OUT_OF_FILES)
    }

    /// A connection to `origin` that could not be made. A file of certificates that cannot be used is
    /// no fault of the server, and is not retried.
    pub fn connecting(origin: &ServerOrigin, cause: BoxError) -> Self {
        match cause.downcast::<Error>() {
            Ok(own) => Self::Final(*own),
            Err(cause) => TransportError::connecting(origin, cause).into(),
        }
    }
}

/// An attempt without a usable response.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub(crate) struct TransportError {
    /// The label for counting retries: `connect`, `reset`, `timeout`, ...
    pub reason: &'static str,
    pub kind: ErrorKind,
    /// The failure and its remedy.
    pub sentence: String,
    pub cause: Option<BoxError>,
    /// Whether a retry may succeed.
    pub retryable: bool,
    /// The most attempts, if fewer than the limits allow: success is unlikely.
    pub attempts_max: Option<u32>,
    /// Whether the server refused a new connection, or closed it without an answer.
    pub unanswered: bool,
}

/// The reason of a connection for which there was no file.
const OUT_OF_FILES: &str = "too many open files";

/// The most attempts to connect to a server that does not accept connections.
const CONNECTS_MAX: u32 = 4;

impl TransportError {
    /// An error that may not occur again.
    pub fn transient(reason: &'static str, sentence: impl Into<String>) -> Self {
        let (sentence, kind) = (sentence.into(), ErrorKind::Io);
        let (cause, retryable, attempts_max, unanswered) = (None, true, None, false);
        Self { reason, kind, sentence, cause, retryable, attempts_max, unanswered }
    }

    /// This error of a new connection, which the server refused or closed without an answer.
    pub fn unanswered(self) -> Self {
        Self { unanswered: true, ..self }
    }

    /// This error with a cause.
    pub fn caused_by(self, cause: impl Into<BoxError>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// The error to report when the request is given up. `doing` completes a sentence that begins
    /// with "cannot".
    pub fn into_error(self, doing: &str) -> Error {
        let error = Error::new(self.kind, format!("cannot {doing}: {}", self.sentence));
        match self.cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    fn connecting(origin: &ServerOrigin, cause: BoxError) -> Self {
        let (sentence, retryable) = if let Some(ProxyFailure { proxy, cause }) =
            find::<ProxyFailure>(&*cause)
        {
            let sentence = format!(
                "the proxy {proxy} gives no connection to {origin}: {cause}; check HTTPS_PROXY, \
                 HTTP_PROXY and ALL_PROXY, or list the host in NO_PROXY"
            );
            (sentence, true)
        } else if let Some(unresolved) = find::<Unresolved>(&*cause) {
            let sentence =
                format!("the name of {origin} does not resolve; check it, and this machine's DNS");
            (sentence, unresolved.is_temporary())
        } else if let Some(tls) = find::<rustls::Error>(&*cause) {
            // An overloaded server may send TLS alerts, so a retry may help. A retry does not help
            // against a bad certificate.
            (tls_failure(origin, tls), !is_about_certificates(tls))
        } else if is_out_of_files(&*cause) {
            let sentence = format!(
                "no connection to {origin}: {cause}; raise ulimit -n, or open fewer files at a time"
            );
            let error = Self::transient(OUT_OF_FILES, sentence);
            return Self { cause: Some(cause), ..error };
        } else {
            let sentence =
                format!("no connection to {origin}: {cause}; check that the server runs");
            (sentence, true)
        };
        let error =
            Self { attempts_max: Some(CONNECTS_MAX), ..Self::transient("connect", sentence) };
        let error = Self { kind: ErrorKind::Unreachable, retryable, ..error };
        error.unanswered().caused_by(cause)
    }

    /// A connection to `origin` that broke before the server answered.
    pub fn closed(origin: &ServerOrigin, cause: BoxError) -> Self {
        // A server says that it misses a certificate of the client when the handshake is over.
        if let Some(tls) = find::<rustls::Error>(&*cause).filter(|tls| is_about_certificates(tls)) {
            let error = Self::transient("connect", tls_failure(origin, tls));
            let kind = ErrorKind::Unreachable;
            return Self { kind, retryable: false, ..error }.caused_by(cause);
        }
        let sentence = format!("{origin} closed the connection before it answered");
        Self::transient("reset", sentence).unanswered().caused_by(cause)
    }
}

/// Whether one of the two is not satisfied with the certificates of the other. Retries do not help.
fn is_about_certificates(error: &rustls::Error) -> bool {
    use rustls::{AlertDescription as Alert, Error};
    matches!(
        error,
        Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::AlertReceived(
                Alert::CertificateRequired
                    | Alert::BadCertificate
                    | Alert::UnknownCA
                    | Alert::AccessDenied
            )
    )
}

fn tls_failure(origin: &ServerOrigin, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "the certificate of {origin} is not trusted ({why:?}); name a file with the authority that \
             issued it, or with the certificate itself, by SSL_CERT_FILE"
        ),
        rustls::Error::InvalidMessage(_) => {
            format!("no TLS with {origin}: {error}; if it speaks plain HTTP, write http://")
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure) => format!(
            "{origin} refuses the TLS handshake (handshake failure); it may require a client \
             certificate ({CLIENT_CERTIFICATE}), or have no cipher of TLS 1.2 or 1.3 that is safe"
        ),
        rustls::Error::AlertReceived(alert) if is_about_certificates(error) => {
            format!("{origin} requires a client certificate ({alert:?}); {CLIENT_CERTIFICATE}")
        }
        other => format!("no TLS with {origin}: {other}"),
    }
}

/// Whether this process, or the system, has too many open files for another socket.
fn is_out_of_files(cause: &(dyn StdError + 'static)) -> bool {
    let number = find::<io::Error>(cause).and_then(io::Error::raw_os_error);
    matches!(number, Some(libc::EMFILE | libc::ENFILE))
}

/// The first error of type `T` among `error` and its causes, also inside of I/O errors.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `source` of an I/O error skips the error that it wraps.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl From<ErrorResponse> for AttemptError {
    fn from(response: ErrorResponse) -> Self {
        Self::Response(Box::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;
    use rustls::AlertDescription as Alert;

    /// These alerts were reported by their names alone, and retried as if the server was overloaded.
    #[test]
    fn alerts_about_a_missing_client_certificate_are_explained() {
        let origin = ServerOrigin::of(&Uri::from_static("https://h/"));
        let alert =
            |alert| -> BoxError { io::Error::other(rustls::Error::AlertReceived(alert)).into() };
        // At the end of the handshake, or when the request was sent (TLS 1.3).
        for error in [
            TransportError::connecting(&origin, alert(Alert::CertificateRequired)),
            TransportError::closed(&origin, alert(Alert::CertificateRequired)),
            TransportError::closed(&origin, alert(Alert::BadCertificate)),
        ] {
            assert!(error.sentence.contains("requires a client certificate"), "{error}");
            assert!(error.sentence.contains("load through a proxy"), "{error}");
            assert!(!error.retryable, "{error}");
        }
        let refused = TransportError::connecting(&origin, alert(Alert::HandshakeFailure));
        assert!(refused.sentence.contains("may require a client certificate"), "{refused}");
        let closed = TransportError::closed(&origin, alert(Alert::InternalError));
        assert!(closed.retryable && closed.unanswered, "{closed}");
    }
}
