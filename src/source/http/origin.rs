//! The servers that connections lead to.

use http::Uri;
use std::fmt;

/// The server that a connection leads to: scheme, host and port. Its text contains no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerOrigin(String);

impl ServerOrigin {
    /// The origin of an absolute `uri`.
    pub fn of(uri: &Uri) -> Self {
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Self(format!("{scheme}://{host}:{port}"))
    }

    /// Whether connections to it are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl fmt::Display for ServerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
