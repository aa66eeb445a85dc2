//! Objects in a store or on a web server.
//!
//! Opening an object takes one request for its first bytes, whose response also gives length and
//! identity. The header of most shards is among those bytes, and all of a small object is. Every later
//! range is requested with that identity (`If-Match`) and its response is checked against it, so an
//! object that is replaced while it is read is an error, never a mixture of old and new bytes.
//!
//! ```text
//! ObjectSource (one a shard) --> ObjectReader (one an engine) --> Object --> windows
//!                                                     |  request: the head is checked
//!                                                     |  receive: the body, into its window
//!                                                     |  verify: the checksum, where wanted
//! ```

mod body_writer;
mod identity;
mod open;
mod range;
mod read;
mod reader;
mod receive;
mod remote_object;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use identity::ObjectIdentity;
pub(crate) use source::ObjectSource;
