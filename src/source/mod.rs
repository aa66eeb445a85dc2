//! Sources: the files and objects that the bytes of shards are read from.
//!
//! A [`Source`] is a local file or an object of known length. All engines share it. Each engine
//! obtains a [`Reader`] of its own from it, which lives on that engine's thread. A call of the
//! reader makes *one attempt*: it may return fewer bytes than asked for, and it may fail. The
//! engine decides whether to resume, retry, downgrade or give up; only `engine::fill` does this.
//! Tests inject faults through the same two traits.
//!
//! ```text
//! Source (Send + Sync, one a shard) --reader()--> Reader (one an engine)
//!                                                    |
//!                          read_at(offset, Window) --+--> (Attempt, Window)
//! ```
//!
//! ```text
//! opener                    opens the source at a location
//! cache_layer               the interface to the local file cache
//! file_source, file_reader  local files           object   objects in stores
//! bytes_source              bytes in memory
//! traits                    Source, Reader, and what an engine provides to its readers
//! verify                    compares the bytes of a file or object with a checksum
//! store                     S3, GCS, Azure, the Hugging Face Hub, web servers
//! http                      the HTTP client       file     descriptors of local files
//! backend, read_threads     reads of files        residency, counters, stop, progress
//! ```

#[allow(unsafe_code)]
mod backend;
mod bytes_source;
#[cfg(feature = "http")]
mod cache_layer;
mod cancellation;
mod counters;
mod file;
mod file_reader;
mod file_source;
#[cfg(feature = "http")]
pub(crate) mod http;
mod list_entry;
#[cfg(test)]
#[path = "tests/memory.rs"]
pub(crate) mod memory;
#[cfg(feature = "http")]
mod object;
mod open_files;
mod opener;
mod progress;
mod purpose;
mod read_threads;
#[cfg_attr(not(feature = "http"), path = "remote_left_out.rs")]
mod remote;
mod residency;
mod stop;
#[cfg(feature = "http")]
pub(crate) mod store;
mod traits;
mod verify;

pub use backend::{Backend, BackendKind};
pub(crate) use bytes_source::BytesSource;
pub use bytes_source::{BorrowedBytes, BorrowedMemory};
#[cfg(feature = "http")]
pub(crate) use cache_layer::RemoteObject;
pub(crate) use cancellation::Cancellable;
pub use cancellation::Cancellation;
pub use counters::LoadCounters;
pub use file::DirectFile;
pub(crate) use file::{MappedFile, WeakMappedFile};
pub use file_source::FileSource;
pub(crate) use list_entry::ListDepth;
#[cfg(feature = "http")]
pub(crate) use object::{ObjectIdentity, ObjectSource};
pub(crate) use open_files::{CONNECTIONS_MAX, connections_allowed, open_files_max};
pub(crate) use opener::Opener;
pub(crate) use progress::Arrivals;
pub use progress::{Progress, ProgressPart, progress_part};
pub(crate) use purpose::Purpose;
pub(crate) use remote::CacheLayer;
pub use residency::resident_bytes;
pub use stop::Stop;
pub(crate) use stop::stopped;
pub use traits::{Access, Attempt, Downgrade, RangeAnswer, ReadFuture, Reader, Source, Via};
pub use verify::{ChecksumVerifier, Verified};
pub(crate) use verify::{ExpectedSum, OrderedSha256};
