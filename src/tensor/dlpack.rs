//! Tensors for other frameworks, without a copy: [DLPack](https://dmlc.github.io/dlpack/latest/).
//!
//! ```text
//! Tensor --Tensor::export--> Export --into_legacy-->    DLManagedTensor          (before 1.0)
//!                                   \-into_versioned--> DLManagedTensorVersioned (1.0 and later)
//! ```
//!
//! What is handed out holds the tensor, and with it its storage, until the consumer calls the deleter:
//! once, from any thread. In a child of the process (after `fork`) the deleter does nothing, as what
//! it would give back belongs to threads that are not there.
//!
//! The consumer may write to what it gets, except to pages of a file
//! ([`ReadPath::Mapped`](crate::ReadPath::Mapped)), which are marked read-only. (The cache's writer may
//! not be done with the same bytes: it knows their seals since they arrived, and what is written to
//! before its turn is not kept.) Host tensors are copied where their address is not aligned for their
//! type, as a file may have it; `ringload_export_copied_bytes_total` counts that.
//!
//! Tensors of GPUs are complete when they are handed out: no stream has to be waited for.

use super::aligned::Aligned;
use super::{Storage, Tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::fork_guard::ForkGuard;
use crate::metrics;
use crate::options::Device;
use safetensors::Dtype;
use std::ffi::c_void;
use std::ptr::NonNull;

/// The version of DLPack whose structures these are.
pub const VERSION: DlVersion = DlVersion { major: 1, minor: 1 };

/// The consumer may not write.
pub const FLAG_READ_ONLY: u64 = 1;

/// What is handed out is a copy that nobody else has.
pub const FLAG_IS_COPIED: u64 = 1 << 1;

const INT: u8 = 0;
const UINT: u8 = 1;
const FLOAT: u8 = 2;

const CPU: i32 = 1;
const CUDA: i32 = 2;

/// `DLPackVersion`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlVersion {
    /// Another one is another structure.
    pub major: u32,
    /// Another one has more values of what is there.
    pub minor: u32,
}

/// `DLDevice`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlDevice {
    /// `DLDeviceType`: 1 is host memory, 2 is CUDA.
    pub device_type: i32,
    /// The ordinal of a GPU; else 0.
    pub device_id: i32,
}

impl From<Device> for DlDevice {
    fn from(device: Device) -> Self {
        match device {
            Device::Host => Self { device_type: CPU, device_id: 0 },
            Device::Cuda(ordinal) => {
                // No machine has 2^31 GPUs.
                Self { device_type: CUDA, device_id: i32::try_from(ordinal).unwrap_or(i32::MAX) }
            }
        }
    }
}

/// `DLDataType`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlDataType {
    /// `DLDataTypeCode`.
    pub code: u8,
    /// Of one element.
    pub bits: u8,
    /// 1: elements are no vectors.
    pub lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
#[derive(Debug)]
pub struct DlTensor {
    /// Where the elements begin; null where there is none.
    pub data: *mut c_void,
    /// Where they are.
    pub device: DlDevice,
    /// How many dimensions there are.
    pub ndim: i32,
    /// What they are.
    pub dtype: DlDataType,
    /// So many elements, by dimension.
    pub shape: *mut i64,
    /// The distance of two neighbours in elements, by dimension.
    pub strides: *mut i64,
    /// 0: `data` is where they begin.
    pub byte_offset: u64,
}

/// `DLManagedTensor`: the structure before DLPack 1.0.
#[repr(C)]
#[derive(Debug)]
pub struct DlManagedTensor {
    /// The tensor.
    pub dl_tensor: DlTensor,
    /// For the deleter.
    pub manager_ctx: *mut c_void,
    /// To be called once, when the tensor is not needed any more.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensor)>,
}

/// `DLManagedTensorVersioned`: the structure from DLPack 1.0 on.
#[repr(C)]
#[derive(Debug)]
pub struct DlManagedTensorVersioned {
    /// Of the structure.
    pub version: DlVersion,
    /// For the deleter.
    pub manager_ctx: *mut c_void,
    /// To be called once, when the tensor is not needed any more.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensorVersioned)>,
    /// [`FLAG_READ_ONLY`], [`FLAG_IS_COPIED`].
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DlTensor,
}

/// How a tensor is exported.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exporting {
    /// Elements are given as integers of the same width, which every consumer knows: U8, I16, I32 and
    /// I64. Those narrower than a byte are given as bytes: the last dimension counts bytes, or there is
    /// no other, where rows are not whole bytes.
    pub as_integers: bool,
    /// `Some(true)`: always copied. `Some(false)`: never, where that is needed it is an error. `None`:
    /// where it is needed.
    pub copy: Option<bool>,
}

/// A tensor about to be handed out.
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
    /// The tensor for a consumer that only reads it, without a copy where `how` and its bytes allow:
    /// it is marked as read-only, unless it is copied.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a type that DLPack has not, where a copy was forbidden and is
    /// needed, and where a copy of a tensor on a GPU was asked for; [`ErrorKind::OutOfMemory`] for a
    /// copy.
    pub fn export(&self, how: Exporting) -> Result<Export> {
        self.exported(how, false)
    }

    /// The tensor for a consumer that may write to it, without a copy where `how` and its bytes
    /// allow.
    ///
    /// The first export of a load waits until the cache does not borrow memory of the load: for one
    /// disk write at most.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    ///
    /// # Safety
    /// Until the deleter of what is exported is called, nobody has a slice of the same bytes: neither
    /// [`bytes`](Self::bytes), [`host_bytes`](Self::host_bytes), [`copy_to`](Self::copy_to) nor
    /// [`to_vec`](Self::to_vec) of this tensor or of its clones is called, no slice that was
    /// taken before is still in use, and no read-only export is still read. Exports may be made all
    /// the same. The consumer is foreign code, or writes by atomic stores: the cache's writer may be
    /// copying the bytes by atomic loads.
    pub unsafe fn export_writable(&self, how: Exporting) -> Result<Export> {
        self.exported(how, true)
    }

    /// Whether [`export_writable`](Self::export_writable) has nothing to wait for.
    pub fn exports_at_once(&self) -> bool {
        self.storage().is_lent()
    }

    fn exported(&self, how: Exporting, writable: bool) -> Result<Export> {
        let (dtype, shape) = match how.as_integers {
            true => as_integers(self),
            false => (self.dl_data_type()?, self.shape().iter().map(|&n| n as i64).collect()),
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

    /// The device that [`export`](Self::export) names.
    pub fn dl_device(&self) -> DlDevice {
        self.device().into()
    }

    fn dl_data_type(&self) -> Result<DlDataType> {
        data_type(self.dtype()).ok_or_else(|| {
            let sentence = format!(
                "tensor {:?} has elements of {}, which are narrower than a byte and cannot be handed \
                 out as such; take them as bytes",
                self.name(),
                self.dtype()
            );
            Error::new(ErrorKind::Unsupported, sentence)
        })
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
                    "tensor {:?} has to be copied to be handed out ({reason}), and a copy was not \
                     allowed; allow it",
                    self.name()
                ),
            )),
            (Some(true), _) => Ok(Some("asked")),
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
    /// As the structure before DLPack 1.0. Whoever takes it calls its deleter, once.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the consumer may not write, which this structure cannot say.
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

    /// As the structure of DLPack 1. Whoever takes it calls its deleter, once.
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
        let held = Held { sizes: sizes.into(), _storage: self.storage };
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
            // Within what `sizes` points to, or one behind its end.
            strides: sizes.wrapping_add(ndim),
            byte_offset: 0,
        };
        NonNull::from(Box::leak(Box::new(make(dl_tensor, held.cast()))))
    }
}

/// What a consumer holds.
struct Held {
    /// The shape, then the strides.
    sizes: Box<[i64]>,
    _storage: Storage,
}

unsafe extern "C" fn delete_legacy(managed: *mut DlManagedTensor) {
    if !managed.is_null() {
        // SAFETY: made by `Export::managed`, whose contract is that this is called once.
        let managed = unsafe { Box::from_raw(managed) };
        // SAFETY: likewise.
        drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<ForkGuard<Held>>()) });
    }
}

unsafe extern "C" fn delete_versioned(managed: *mut DlManagedTensorVersioned) {
    if !managed.is_null() {
        // SAFETY: made by `Export::managed`, whose contract is that this is called once.
        let managed = unsafe { Box::from_raw(managed) };
        // SAFETY: likewise.
        drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<ForkGuard<Held>>()) });
    }
}

/// `dtype` as DLPack has it; `None` for what is narrower than a byte.
fn data_type(dtype: Dtype) -> Option<DlDataType> {
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
        _ => return None,
    };
    Some(DlDataType { code, bits: dtype.bitsize() as u8, lanes: 1 })
}

/// The elements of `tensor` as integers of the same width, and its shape then.
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

/// What the address of an element has to be a multiple of.
fn alignment_bytes(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::C64 => 4, // two floats
        other => (other.bitsize() as u64 / 8).max(1),
    }
}

#[cfg(test)]
mod tests;
