//! cuFile: reads from files directly into device memory.
//!
//! As with the real driver, its driver outlives contexts, but registrations do not.

use crate::call::Call;
use crate::orders::Gds;
use crate::result::{
    CU_FILE_CUDA_DRIVER_ERROR, CU_FILE_DRIVER_NOT_INITIALIZED, CU_FILE_SUCCESS, CUDA_SUCCESS,
    CUfileOpError, CUresult,
};
use crate::state::State;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The result of cuFile's functions.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CUfileError {
    /// cuFile's own result.
    pub err: CUfileOpError,
    /// The driver's result, if the driver failed.
    pub cu_err: CUresult,
}

impl CUfileError {
    /// No error.
    pub const SUCCESS: Self = CUfileError { err: CU_FILE_SUCCESS, cu_err: CUDA_SUCCESS };

    pub(crate) fn file(err: CUfileOpError) -> Self {
        CUfileError { err, cu_err: CUDA_SUCCESS }
    }

    pub(crate) fn driver(cu_err: CUresult) -> Self {
        CUfileError { err: CU_FILE_CUDA_DRIVER_ERROR, cu_err }
    }
}

#[derive(Debug)]
pub(crate) struct Files {
    /// How many times the driver was opened minus how many times it was closed.
    pub(crate) opened: usize,
    pub(crate) handles: BTreeMap<usize, Handle>,
    /// By their first address.
    pub(crate) buffers: BTreeMap<u64, Buffer>,
    /// The allocations that reads write to, once for each read.
    pub(crate) reading: Vec<u64>,
    pub(crate) reads: u64,
}

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) fd: RawFd,
    /// The same file without direct I/O, which accepts any offset.
    pub(crate) file: Arc<File>,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: u64,
    pub(crate) allocation: u64,
}

impl Files {
    pub(crate) const fn new() -> Self {
        Files {
            opened: 0,
            handles: BTreeMap::new(),
            buffers: BTreeMap::new(),
            reading: Vec::new(),
            reads: 0,
        }
    }

    pub(crate) fn handles(&self) -> usize {
        self.handles.len()
    }

    pub(crate) fn buffers_of(&self, state: &State, context: usize) -> usize {
        let own = |buffer: &&Buffer| {
            let allocation = state.allocations.get(&buffer.allocation);
            allocation.is_some_and(|one| one.owned.context == context && !one.owned.given_up)
        };
        self.buffers.values().filter(own).count()
    }

    /// Raises the alarm if the allocation is registered or a read is writing to it.
    pub(crate) fn check_unused(&self, function: &str, allocation: u64) {
        if self.reading.contains(&allocation) {
            alarm!("{function}: the memory is still in use: cuFileRead is reading into it");
        }
        if self.buffers.values().any(|buffer| buffer.allocation == allocation) {
            alarm!("{function}: the memory is still registered with cuFile");
        }
    }
}

/// Begins a call of cuFile. It fails if a failure is injected or the driver may not open.
pub(crate) fn enter(function: &'static str, sizes: &[u64]) -> Result<Call, CUfileError> {
    checked(Call::begin(function, sizes))
}

/// As [`enter`], for a call that needs the current context.
pub(crate) fn enter_in_context(function: &'static str, sizes: &[u64]) -> Result<Call, CUfileError> {
    let call = checked(Call::of_context(function, sizes))?;
    call.unless_failed().map_err(CUfileError::driver)
}

fn checked(mut call: Call) -> Result<Call, CUfileError> {
    if let Some(result) = call.ordered_failure() {
        return Err(CUfileError::file(result));
    }
    if call.state.orders().gds == Gds::Off {
        return Err(CUfileError::file(CU_FILE_DRIVER_NOT_INITIALIZED));
    }
    Ok(call)
}

/// Converts the result of a function's body to cuFile's result.
pub(crate) fn answer(body: impl FnOnce() -> Result<(), CUfileError>) -> CUfileError {
    body().err().unwrap_or(CUfileError::SUCCESS)
}
