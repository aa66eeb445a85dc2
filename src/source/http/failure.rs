//! How an attempt can fail.

use super::dial::Unresolved;
use super::error_response::ErrorResponse;
use crate::error::{Error, ErrorKind};
use std::error::Error as StdError;
use std::fmt;
use std::io;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or not all of it.
    Broken(Broken),
    /// An answer that is not what was asked for.
    Refused(Box<ErrorResponse>),
    /// What no further attempt would change.
    Stopped(Error),
}

/// An attempt without an answer, or without all of it.
#[derive(Debug)]
pub(crate) struct Broken {
    /// For counting: `connect`, `reset`, `timeout`, ...
    pub word: &'static str,
    pub kind: ErrorKind,
    /// What happened, and what to do where something can be done.
    pub sentence: String,
    pub cause: Option<BoxError>,
    /// Whether another attempt may help.
    pub again: bool,
    /// Where that is unlikely: how many attempts at most.
    pub attempts_max: Option<u32>,
}

/// How often a server that does not even accept a connection is tried.
const CONNECTS_MAX: u32 = 4;

impl Broken {
    /// Something that may go better next time.
    pub fn passing(word: &'static str, sentence: impl Into<String>) -> Self {
        let (sentence, kind) = (sentence.into(), ErrorKind::Io);
        Self { word, kind, sentence, cause: None, again: true, attempts_max: None }
    }

    /// The same with its cause.
    pub fn caused_by(self, cause: impl Into<BoxError>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// The error of giving up while `doing`.
    pub fn into_error(self, doing: &str) -> Error {
        let error = Error::new(self.kind, format!("cannot {doing}: {}", self.sentence));
        match self.cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    /// A connection to `origin` that could not be made.
    pub fn connecting(origin: &str, cause: BoxError) -> Self {
        let mut broken = Self::passing("connect", "");
        broken.kind = ErrorKind::Unreachable;
        broken.attempts_max = Some(CONNECTS_MAX);
        if let Some(unresolved) = find::<Unresolved>(&*cause) {
            broken.sentence =
                format!("the name of {origin} does not resolve; check it, and this machine's DNS");
            broken.again = unresolved.is_temporary();
        } else if let Some(tls) = find::<rustls::Error>(&*cause) {
            broken.sentence = untrusted(origin, tls);
            // Alerts may come from an overloaded server; certificates do not get better.
            broken.again = !matches!(
                tls,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
            );
        } else {
            broken.sentence =
                format!("no connection to {origin}: {cause}; check that the server runs");
        }
        broken.cause = Some(cause);
        broken
    }
}

fn untrusted(origin: &str, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "the certificate of {origin} is not trusted ({why:?}); name the authority that issued \
             it with SSL_CERT_FILE"
        ),
        other => format!("no TLS with {origin}: {other}"),
    }
}

/// The first error of type `T` among `error` and its causes, also inside of I/O errors.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error's own cause is the cause of what it wraps, which would be passed over.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Broken(broken)
    }
}

impl From<ErrorResponse> for Failure {
    fn from(refusal: ErrorResponse) -> Self {
        Failure::Refused(Box::new(refusal))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Stopped(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Broken(broken) => f.write_str(&broken.sentence),
            Failure::Refused(refusal) => write!(f, "the server answered {}", refusal.status),
            Failure::Stopped(error) => error.fmt(f),
        }
    }
}
