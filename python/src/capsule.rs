//! Capsules: what the interpreter holds of DLPack.
//!
//! A consumer takes the pointer out and renames the capsule to `used_...`; from then on the tensor is
//! its own. A capsule that still has its name when it goes gives the tensor back itself.

use crate::error::buffer_error;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use ringload::dlpack::{DlManagedTensor, DlManagedTensorVersioned, Export};
use std::ffi::CStr;

const LEGACY: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// `export` for a consumer of DLPack before 1.0.
pub(crate) fn legacy(py: Python<'_>, export: Export) -> PyResult<Bound<'_, PyCapsule>> {
    let managed = export.into_legacy().map_err(|error| buffer_error(error.to_string()))?;
    // SAFETY: the pointer is what the name says and stays so until the consumer, or the destructor,
    // calls its deleter.
    unsafe {
        PyCapsule::new_with_pointer_and_destructor(py, managed.cast(), LEGACY, Some(delete_legacy))
    }
}

/// `export` for a consumer of DLPack 1.
pub(crate) fn versioned(py: Python<'_>, export: Export) -> PyResult<Bound<'_, PyCapsule>> {
    let managed = export.into_versioned().cast();
    // SAFETY: as above.
    unsafe {
        PyCapsule::new_with_pointer_and_destructor(py, managed, VERSIONED, Some(delete_versioned))
    }
}

unsafe extern "C" fn delete_legacy(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this with the capsule; its name is as long-lived as this module.
    let pointer = unsafe { unused(capsule, LEGACY) }.cast::<DlManagedTensor>();
    // SAFETY: nobody took it, so it is what was put in, and its deleter was not called.
    if let Some(deleter) = unsafe { pointer.as_ref() }.and_then(|managed| managed.deleter) {
        // SAFETY: likewise.
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

/// What is in a capsule that still has its name; null where it was taken.
///
/// # Safety
/// It is a capsule, and the interpreter is held.
unsafe fn unused(capsule: *mut ffi::PyObject, name: &CStr) -> *mut std::ffi::c_void {
    // SAFETY: as the caller says.
    if unsafe { ffi::PyCapsule_IsValid(capsule, name.as_ptr()) } == 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: as the caller says; it has this name.
    unsafe { ffi::PyCapsule_GetPointer(capsule, name.as_ptr()) }
}
