//! TLS: rustls makes the handshake, and the records after it are opened here.
//!
//! ```text
//! configuration  which authorities are trusted      certificates  the check of a certificate
//! stream         a connection: socket and session
//!   handshake    by rustls, which then hands over the keys
//!   session      records after the handshake: data, alerts, tickets, key updates
//!     record     headers and limits                 keys          opens and seals records
//!     messages   puts handshake messages together
//! ```
//!
//! Data is decrypted once, from the memory into which the socket was read straight into its
//! destination. rustls itself, whose interface is made for any use, copies it three times. What is
//! supported here are TLS 1.3 and TLS 1.2 with AES-GCM, which every store speaks. Servers that want
//! something else are left to rustls.

mod certificates;
mod configuration;
mod handshake;
mod keys;
mod messages;
mod record;
mod session;
mod stream;
#[cfg(test)]
mod test_peer;

pub(super) use configuration::{TlsConfiguration, configuration, is_aes_gcm};
pub(crate) use stream::TlsStream;
