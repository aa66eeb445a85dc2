//! The requests of a `read_into`: a range of a location, or a tensor of an open checkpoint, and the
//! memory to read it into.
#![allow(unsafe_code)]

use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::location::Location;
use crate::source::Source;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

/// A range of a location, and the memory to read it into.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, ReadRequest};
/// use std::ops::ControlFlow;
///
/// let loader = Loader::new();
/// let checkpoint = loader.open(&path)?;
/// let norm = checkpoint.tensor("norm").ok_or("no norm")?;
/// let mut memory = vec![1; norm.len_bytes() as usize]; // of the caller
/// let mut requests = [ReadRequest::tensor(&checkpoint, norm, &mut memory)];
/// loader.read_into(&mut requests, |_done| ControlFlow::Continue(()))?;
/// assert_eq!(memory, [0; 24]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReadRequest<'a> {
    pub(super) from: RequestOrigin,
    pub(super) offset_bytes: u64,
    pub(super) into: RequestTarget<'a>,
}

pub(super) enum RequestOrigin {
    /// A location that is opened by the call.
    Location(Location),
    /// An open source.
    Source(Arc<dyn Source>),
}

#[derive(Debug)]
pub(super) enum RequestTarget<'a> {
    Host(HostMemory<'a>),
    Gpu { ordinal: u32, address: u64, len_bytes: u64 },
}

/// Memory of the caller, which the request has for itself.
#[derive(Debug)]
pub(super) struct HostMemory<'a> {
    bytes: NonNull<[u8]>,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: as `&mut [u8]`, which this is but for the moment at which it ends.
unsafe impl Send for HostMemory<'_> {}
// SAFETY: as above; a shared reference does not reach the bytes.
unsafe impl Sync for HostMemory<'_> {}

impl HostMemory<'_> {
    /// The memory. It is not touched here.
    pub fn bytes(&self) -> NonNull<[u8]> {
        self.bytes
    }
}

impl fmt::Debug for RequestOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(location) => write!(f, "{location}"),
            Self::Source(source) => write!(f, "{}", source.location()),
        }
    }
}

impl<'a> ReadRequest<'a> {
    /// Requests `into.len()` bytes of `location` from `offset_bytes`.
    ///
    /// Memory whose address is congruent to the offset modulo 4096 can be read into directly. Other
    /// memory is filled through the page cache.
    pub fn new(location: impl Into<Location>, offset_bytes: u64, into: &'a mut [u8]) -> Self {
        let from = RequestOrigin::Location(location.into());
        Self { from, offset_bytes, into: host(NonNull::from(into)) }
    }

    /// Requests all bytes of a tensor of an open checkpoint, whose files are not opened again.
    ///
    /// # Panics
    /// When `into` is not as long as the tensor.
    pub fn tensor(checkpoint: &Checkpoint, tensor: &TensorInfo, into: &'a mut [u8]) -> Self {
        assert_eq!(into.len() as u64, tensor.len_bytes(), "{} is of another length", tensor.name());
        let source = checkpoint.shards()[tensor.shard()].source();
        Self::of(source, tensor.offset_bytes(), into)
    }

    /// As [`tensor`](Self::tensor), into the memory at `address`, which the caller may use again as
    /// soon as the request is complete. So it can work on the first tensors while the last ones are
    /// being read.
    ///
    /// # Safety
    /// `address` is valid for writes of as many bytes as the tensor has. From the call of
    /// [`read_into`](crate::Loader::read_into) until it calls `on_complete` for this request, or
    /// returns, the memory stays allocated and nothing else accesses it.
    pub unsafe fn tensor_at(
        checkpoint: &Checkpoint,
        tensor: &TensorInfo,
        address: NonNull<u8>,
    ) -> ReadRequest<'static> {
        let source = checkpoint.shards()[tensor.shard()].source();
        let bytes = NonNull::slice_from_raw_parts(address, tensor.len_bytes() as usize);
        let from = RequestOrigin::Source(Arc::clone(source));
        ReadRequest { from, offset_bytes: tensor.offset_bytes(), into: host(bytes) }
    }

    /// As [`tensor`](Self::tensor), into the memory of GPU `ordinal` at `address`. Before it is written,
    /// the address is checked to be memory of that GPU.
    ///
    /// # Safety
    /// As for [`on_device`](Self::on_device).
    pub unsafe fn tensor_on_device(
        checkpoint: &Checkpoint,
        tensor: &TensorInfo,
        ordinal: u32,
        address: u64,
    ) -> ReadRequest<'static> {
        let source = checkpoint.shards()[tensor.shard()].source();
        let from = RequestOrigin::Source(Arc::clone(source));
        let into = RequestTarget::Gpu { ordinal, address, len_bytes: tensor.len_bytes() };
        ReadRequest { from, offset_bytes: tensor.offset_bytes(), into }
    }

    /// As [`new`](Self::new), for an open source, such as the source of a shard.
    pub(crate) fn of(source: &Arc<dyn Source>, offset_bytes: u64, into: &'a mut [u8]) -> Self {
        let from = RequestOrigin::Source(Arc::clone(source));
        Self { from, offset_bytes, into: host(NonNull::from(into)) }
    }

    /// Reads from the open `source` instead of opening the location.
    #[cfg(feature = "capi")]
    pub(crate) fn open_as(self, source: &Arc<dyn Source>) -> Self {
        Self { from: RequestOrigin::Source(Arc::clone(source)), ..self }
    }

    /// Requests `len_bytes` bytes of `location` from `offset_bytes`, into the memory of GPU `ordinal`
    /// at `address`. Before it is written, the address is checked to be memory of that GPU.
    ///
    /// # Safety
    /// From the call of [`read_into`](crate::Loader::read_into) until it returns, the memory stays
    /// allocated and nothing else accesses it, including work that was queued on the GPU before.
    pub unsafe fn on_device(
        location: impl Into<Location>,
        offset_bytes: u64,
        ordinal: u32,
        address: u64,
        len_bytes: u64,
    ) -> Self {
        let from = RequestOrigin::Location(location.into());
        Self { from, offset_bytes, into: RequestTarget::Gpu { ordinal, address, len_bytes } }
    }

    pub(super) fn len_bytes(&self) -> u64 {
        match &self.into {
            RequestTarget::Host(into) => into.bytes.len() as u64,
            RequestTarget::Gpu { len_bytes, .. } => *len_bytes,
        }
    }
}

fn host<'a>(bytes: NonNull<[u8]>) -> RequestTarget<'a> {
    RequestTarget::Host(HostMemory { bytes, borrowed: PhantomData })
}
