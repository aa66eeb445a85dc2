//! HTTP/1.1 over hyper connections: the client for all object stores and web servers.
//!
//! ```text
//! client         what the requests of a loader share; sends one request
//! attempt        authorization and redirects; retries of small requests
//! policy         what the client has to know about a store
//! retry          decides what follows a failed attempt
//! request, body  one request on one connection; the body is read straight into its memory
//! connect        connections, proxies                 addresses    the addresses of names
//! socket         a connection that may read ahead
//! secure         chooses between tls and rustls       tls          records, opened straight into place
//! stream         a connection with or without TLS     server       what is remembered of a server
//! pool           idle connections                     ahead        connections opened ahead
//! concurrency    limits the ranges requested at once  hedging      repeats late requests
//! stall          detects bodies that stall            control      a thread for small requests
//! low_water      wakes the reader of a body rarely
//! sent_secrets   removes the secrets of a request from what the server answers
//! ```
//!
//! HTTP/2 is not used: a connection with many streams has flow control at two levels and is
//! decrypted by one core at a time, and object stores are built for many connections.

mod addresses;
mod ahead;
mod attempt;
mod attempt_error;
mod body;
mod client;
mod concurrency;
mod connect;
mod control;
mod error_body;
mod error_response;
mod hedging;
mod low_water;
mod origin;
mod policy;
mod pool;
mod redirect;
mod request;
mod retry;
mod secure;
mod sent_secrets;
mod server;
mod socket;
mod stall;
mod stream;
mod tls;

pub(crate) use attempt::ServerResponse;
pub(crate) use attempt_error::{AttemptError, Attempted, TransportError};
pub(crate) use body::Body;
pub(crate) use client::Client;
pub(crate) use concurrency::{BodyTime, Permit};
pub(crate) use error_body::ErrorBody;
pub(crate) use error_response::{ErrorAction, ErrorResponse};
pub(crate) use hedging::{ArrivingBody, Repeat, UsualPace};
pub(crate) use low_water::LowWaterMark;
pub(crate) use origin::ServerOrigin;
pub(crate) use policy::RequestPolicy;
pub(crate) use retry::{PausedRetry, RetryState};
pub(crate) use sent_secrets::SentSecrets;
pub(crate) use server::ServerState;
pub(crate) use stall::StallTimeout;
