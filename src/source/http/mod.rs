//! HTTP/1.1 over raw hyper connections: what all object stores and web servers are reached by.
//!
//! ```text
//! client    what the requests of a loader share; one attempt of a request; small requests whole
//! exchange  one request on one connection; the body is read straight into its memory
//! socket    a TCP connection that may read ahead
//! dial      names, addresses, proxies, TLS          pool     idle connections of a runtime
//! retry     what follows from a failed attempt      host     what is remembered of a server
//! gate      how many ranges are under way at once   tail     when an answer is late
//! pace      whether a body keeps coming
//! ```
//!
//! HTTP/2 is not used: one connection with many streams is flow-controlled twice and decrypted by
//! one core at a time; many connections are what object stores are built for.

mod attempt;
mod client;
mod control;
mod dial;
mod error_response;
mod exchange;
mod failure;
mod gate;
mod host;
mod pace;
mod policy;
mod pool;
mod redirect;
mod retry;
mod socket;
mod tail;

pub(crate) use attempt::Answered;
pub(crate) use client::Client;
pub(crate) use error_response::{ErrorAction, ErrorResponse};
pub(crate) use exchange::Body;
pub(crate) use failure::{Broken, Failure};
pub(crate) use gate::CONNECTIONS_MAX;
pub(crate) use host::Host;
pub(crate) use pace::Watch;
pub(crate) use policy::{BoxFuture, RequestPolicy};
pub(crate) use pool::{Origin, Pool};
pub(crate) use retry::Tries;
