//! Capsules: the Python objects that carry DLPack structures.
//!
//! A consumer takes the pointer out of the capsule and renames it to `used_...`; from then on the
//! consumer owns the tensor. The destructor of a capsule that still has its original name releases
//! the tensor.

use crate::error::{buffer_error, raised};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use ringload::ErrorKind;
use ringload::dlpack::{DlManagedTensor, DlManagedTensorVersioned, Export, Exporting};
use std::ffi::CStr;

const LEGACY: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// A capsule of `tensor`, whose consumer may write to it; `versioned` for consumers of DLPack 1.0
/// and later.
pub(crate) fn of_tensor<'py>(
    py: Python<'py>,
    tensor: &ringload::Tensor,
    how: Exporting,
    versioned: bool,
) -> PyResult<Bound<'py, PyCapsule>> {
    let export = exported(py, tensor, how)?;
    if versioned {
        let managed = export.into_versioned().cast();
        let delete = Some(delete_versioned as unsafe extern "C" fn(_));
        // SAFETY: the pointer has the type that the name stands for, and stays valid until the
        // consumer, or the destructor, calls its deleter.
        unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed, VERSIONED, delete) }
    } else {
        let managed = export.into_legacy().map_err(|error| buffer_error(error.to_string()))?.cast();
        let delete = Some(delete_legacy as unsafe extern "C" fn(_));
        // SAFETY: as above.
        unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed, LEGACY, delete) }
    }
}

/// Exports `tensor` to a consumer that may write to it.
pub(crate) fn exported(
    py: Python<'_>,
    tensor: &ringload::Tensor,
    how: Exporting,
) -> PyResult<Export> {
    // SAFETY: this package makes no slices of tensors: it only exports them, and exports that are
    // copies are made by atomic loads. The loader keeps no clone of a tensor that it delivered.
    // Consumers are frameworks: foreign code.
    let export = || unsafe { tensor.export_writable(how) };
    let export = match tensor.exports_at_once() {
        true => export(),
        false => py.detach(export), // the first export of a load waits for the cache's disk writes
    };
    export.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => buffer_error(error.to_string()),
        _ => raised(py, &error),
    })
}

unsafe extern "C" fn delete_legacy(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this with the capsule and holds the GIL.
    let pointer = unsafe { unused(capsule, LEGACY) }.cast::<DlManagedTensor>();
    // SAFETY: no consumer took it, so it is the structure that the capsule was made with.
    if let Some(deleter) = unsafe { pointer.as_ref() }.and_then(|managed| managed.deleter) {
        // SAFETY: as above, and the deleter was not called yet.
        unsafe { deleter(pointer) };
    }
}

unsafe extern "C" fn delete_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: as `delete_legacy`.
    let pointer = unsafe { unused(capsule, VERSIONED) }.cast::<DlManagedTensorVersioned>();
    // SAFETY: as `delete_legacy`.
    if let Some(deleter) = unsafe { pointer.as_ref() }.and_then(|managed| managed.deleter) {
        // SAFETY: as `delete_legacy`.
        unsafe { deleter(pointer) };
    }
}

/// The pointer in a capsule that still has its original name; null once a consumer took it.
///
/// # Safety
/// `capsule` is a capsule, and the caller holds the GIL.
unsafe fn unused(capsule: *mut ffi::PyObject, name: &CStr) -> *mut std::ffi::c_void {
    // SAFETY: the caller vouches for both.
    if unsafe { ffi::PyCapsule_IsValid(capsule, name.as_ptr()) } == 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: as above; the capsule has this name.
    unsafe { ffi::PyCapsule_GetPointer(capsule, name.as_ptr()) }
}
