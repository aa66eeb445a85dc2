//! Tensors for other frameworks, without a copy: [DLPack](https://dmlc.github.io/dlpack/latest/).
//!
//! ```text
//! Tensor --Tensor::export--> Export --into_legacy-->    DLManagedTensor          (before 1.0)
//!                                   \-into_versioned--> DLManagedTensorVersioned (1.0 and later)
//! ```
//!
//! An export holds the tensor's storage until the consumer calls the deleter, which it does once,
//! from any thread. In a forked child the deleter does nothing, as the memory is managed by threads
//! that exist in the parent only.
//!
//! Exports are read-only or writable. Pages of a file ([`ReadPath::Mapped`](crate::ReadPath::Mapped))
//! are always exported as read-only. A host tensor is copied if its address is not aligned for its
//! type, which depends on the file; the metric `ringload_export_copied_bytes_total` counts that.
//!
//! Tensors on GPUs are complete when they are exported: the consumer need not wait for a stream.

mod abi;

pub use abi::{
    DlDataType, DlDevice, DlManagedTensor, DlManagedTensorVersioned, DlTensor, DlVersion,
    FLAG_IS_COPIED, FLAG_READ_ONLY, VERSION,
};

use super::aligned::Aligned;
use super::storage::Storage;
use super::view::Tensor;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::fork_guard::ForkGuard;
use crate::metrics;
use std::ffi::c_void;
use std::ptr::NonNull;

const INT: u8 = 0;
const UINT: u8 = 1;
const FLOAT: u8 = 2;

/// How a tensor is exported.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exporting {
    /// Exports the elements as integers of the same width, which every consumer supports: U8, I16, I32
    /// or I64. Elements narrower than a byte are exported as bytes, which the last dimension counts;
    /// where rows are not whole bytes, there is only one dimension.
    pub as_integers: bool,
    /// Whether the tensor is copied: `Some(true)` always, `Some(false)` never (an error if a copy is
    /// needed), `None` if needed.
    pub copy: Option<bool>,
}

/// A tensor that is about to be passed to a consumer.
#[derive(Debug)]
pub struct Export {
    storage: Storage,
    data: *mut c_void,
    dtype: DlDataType,
    shape: Vec<i64>,
    is_copied: bool,
    is_read_only: bool,
}

// SAFETY: `data` points into `storage`, which may be dropped on any thread.
unsafe impl Send for Export {}

impl Tensor {
    /// Exports the tensor for a consumer that only reads it: marked as read-only, or copied.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if a copy is needed and forbidden, and for a copy of a tensor on a
    /// GPU; [`ErrorKind::OutOfMemory`] when there is no memory for a copy.
    pub fn export(&self, how: Exporting) -> Result<Export> {
        self.exported(how, false)
    }

    /// Exports the tensor for a consumer that may write to it.
    ///
    /// The first such export of a load waits while the cache borrows memory of the load, which is the
    /// time of one disk write at most.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    ///
    /// # Safety
    /// Until the export is dropped or its deleter is called, nobody has a slice of the tensor's bytes: slices taken
    /// earlier are not used any more, nobody calls [`bytes`](Self::bytes),
    /// [`host_bytes`](Self::host_bytes), [`copy_to`](Self::copy_to) or [`to_vec`](Self::to_vec) of this
    /// tensor or its clones, and nobody reads a read-only export. Further exports are permitted.
    ///
    /// The consumer is foreign code, or writes by atomic stores: the cache's writer may be copying the
    /// bytes by atomic loads.
    pub unsafe fn export_writable(&self, how: Exporting) -> Result<Export> {
        self.exported(how, true)
    }

    /// Whether [`export_writable`](Self::export_writable) returns without waiting.
    pub fn exports_at_once(&self) -> bool {
        self.storage().is_lent()
    }

    fn exported(&self, how: Exporting, writable: bool) -> Result<Export> {
        let (dtype, shape) = match how.as_integers {
            true => as_integers(self),
            false => data_type(self),
        };
        let (storage, start, is_copied) = match self.reason_to_copy(how.copy)? {
            None => (self.storage().clone(), self.start, false),
            Some(reason) => (self.copied(reason)?, 0, true),
        };
        let is_read_only = storage.is_read_only() || !(writable || is_copied);
        if !is_read_only {
            storage.lend();
        }
        let first = storage.as_ptr();
        let data = match self.len_bytes() {
            0 => std::ptr::null_mut(),
            _ if first.is_null() => (storage.address() + start as u64) as *mut c_void,
            _ => first.wrapping_add(start).cast_mut().cast(),
        };
        Ok(Export { storage, data, dtype, shape, is_copied, is_read_only })
    }

    /// The device of the tensor's exports.
    pub fn dl_device(&self) -> DlDevice {
        self.device().into()
    }

    fn reason_to_copy(&self, copy: Option<bool>) -> Result<Option<&'static str>> {
        let is_aligned = self.address().is_multiple_of(alignment_bytes(self.dtype()));
        let reason = match () {
            () if !self.device().is_host() || self.len_bytes() == 0 => None,
            () if !is_aligned => Some("alignment"),
            () => None,
        };
        match (copy, reason) {
            (Some(false), Some(reason)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "tensor {:?} has to be copied to be exported ({reason}), and a copy was not \
                     allowed; allow it",
                    self.name()
                ),
            )),
            (Some(true), _) => Ok(Some("requested")),
            (_, reason) => Ok(reason),
        }
    }

    fn copied(&self, reason: &'static str) -> Result<Storage> {
        let refuse = |kind, why: &str| {
            Err(Error::new(kind, format!("cannot copy tensor {:?}: {why}", self.name())))
        };
        if !self.device().is_host() {
            return refuse(ErrorKind::Unsupported, "it is on a GPU; copy it there after loading");
        }
        let Some(mut copy) = Aligned::zeroed(self.len_bytes()) else {
            return refuse(ErrorKind::OutOfMemory, "there is no memory for it");
        };
        self.storage().copy_out(self.start, copy.bytes_mut())?;
        tracing::trace!(tensor = self.name(), reason, "copied for export");
        metrics::export_copied(reason, copy.len() as u64);
        Ok(Storage::own(copy))
    }
}

impl Export {
    /// The type of the elements.
    pub fn dtype(&self) -> DlDataType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The address of the first element in the address space of the device; 0 without elements.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// Whether the consumer must not write to the memory.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The structure for consumers of DLPack before 1.0. The caller passes it to a consumer that calls
    /// its deleter, once.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a read-only export, which this structure cannot express.
    pub fn into_legacy(self) -> Result<NonNull<DlManagedTensor>> {
        if self.is_read_only {
            let what = match self.storage.is_read_only() {
                true => "tensors of the mapped read path are read-only; use another read path",
                false => "the tensor is exported as read-only; export it as writable",
            };
            let sentence =
                format!("DLPack before 1.0 cannot mark tensors as read-only, and {what}");
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        Ok(self.managed(|dl_tensor, manager_ctx| DlManagedTensor {
            dl_tensor,
            manager_ctx,
            deleter: Some(delete_legacy),
        }))
    }

    /// The structure for consumers of DLPack 1. The caller passes it to a consumer that calls its
    /// deleter, once.
    pub fn into_versioned(self) -> NonNull<DlManagedTensorVersioned> {
        let read_only = if self.is_read_only { FLAG_READ_ONLY } else { 0 };
        let flags = read_only | if self.is_copied { FLAG_IS_COPIED } else { 0 };
        self.managed(|dl_tensor, manager_ctx| DlManagedTensorVersioned {
            version: VERSION,
            manager_ctx,
            deleter: Some(delete_versioned),
            flags,
            dl_tensor,
        })
    }

    fn managed<M>(self, make: impl FnOnce(DlTensor, *mut c_void) -> M) -> NonNull<M> {
        let ndim = self.shape.len();
        let mut sizes = self.shape;
        sizes.resize(2 * ndim, 1);
        for dimension in (1..ndim).rev() {
            // Empty tensors may have dimensions whose product is beyond any number.
            sizes[ndim + dimension - 1] = sizes[ndim + dimension].saturating_mul(sizes[dimension]);
        }
        let device = self.storage.device().into();
        let held = ExportContext { sizes: sizes.into(), _storage: self.storage };
        let held = Box::into_raw(Box::new(ForkGuard::new(held)));
        // SAFETY: it was just made, and nobody else has it yet.
        let sizes = match unsafe { (*held).get_in_any_process() } {
            Some(held) => held.sizes.as_ptr().cast_mut(),
            None => std::ptr::null_mut(),
        };
        let dl_tensor = DlTensor {
            data: self.data,
            device,
            ndim: ndim as i32,
            dtype: self.dtype,
            shape: sizes,
            // Within the array that `sizes` points to, or one past its end.
            strides: sizes.wrapping_add(ndim),
            byte_offset: 0,
        };
        NonNull::from(Box::leak(Box::new(make(dl_tensor, held.cast()))))
    }
}

/// The values that an export keeps alive until the deleter is called.
struct ExportContext {
    /// The shape, then the strides.
    sizes: Box<[i64]>,
    _storage: Storage,
}

unsafe extern "C" fn delete_legacy(managed: *mut DlManagedTensor) {
    if !managed.is_null() {
        // SAFETY: made by `Export::managed`, whose contract is that this is called once.
        let managed = unsafe { Box::from_raw(managed) };
        // SAFETY: likewise.
        drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<ForkGuard<ExportContext>>()) });
    }
}

unsafe extern "C" fn delete_versioned(managed: *mut DlManagedTensorVersioned) {
    if !managed.is_null() {
        // SAFETY: made by `Export::managed`, whose contract is that this is called once.
        let managed = unsafe { Box::from_raw(managed) };
        // SAFETY: likewise.
        drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<ForkGuard<ExportContext>>()) });
    }
}

/// The DLPack type of the elements of `tensor`, and the shape in that type. Elements narrower than a
/// byte are packed. Two F4 are one element, as in torch, unless a row has an odd number of them.
fn data_type(tensor: &Tensor) -> (DlDataType, Vec<i64>) {
    let dtype = tensor.dtype();
    let code = match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => INT,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => UINT,
        Dtype::F16 | Dtype::F32 | Dtype::F64 => FLOAT,
        Dtype::BF16 => 4,
        Dtype::C64 => 5,
        Dtype::BOOL => 6,
        Dtype::F8_E4M3 => 10,
        Dtype::F8_E4M3FNUZ => 11,
        Dtype::F8_E5M2 => 12,
        Dtype::F8_E5M2FNUZ => 13,
        Dtype::F8_E8M0 => 14,
        Dtype::F6_E2M3 => 15,
        Dtype::F6_E3M2 => 16,
        Dtype::F4 => 17,
    };
    let mut shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
    let lanes = match shape.last_mut() {
        Some(last) if dtype == Dtype::F4 && *last % 2 == 0 => {
            *last /= 2;
            2
        }
        _ => 1,
    };
    (DlDataType { code, bits: dtype.bitsize() as u8, lanes }, shape)
}

/// The integer type of the same width for the elements of `tensor`, and the shape in that type.
fn as_integers(tensor: &Tensor) -> (DlDataType, Vec<i64>) {
    let bits = tensor.dtype().bitsize();
    let mut shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
    let (code, width) = match bits {
        16 | 32 | 64 => (INT, bits as u8),
        _ => (UINT, 8),
    };
    if bits < 8 {
        match shape.last_mut() {
            Some(last) if *last * bits as i64 % 8 == 0 => *last = *last * bits as i64 / 8,
            _ => shape = vec![tensor.len_bytes() as i64],
        }
    }
    (DlDataType { code, bits: width, lanes: 1 }, shape)
}

/// The alignment of an element in bytes.
fn alignment_bytes(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::C64 => 4, // two floats
        other => (other.bitsize() as u64 / 8).max(1),
    }
}

#[cfg(test)]
mod tests;
