//! Launches: the kernels of `kernels.cpp` run on the host, after a check of their pieces.
//!
//! Every kernel takes an array of pieces in device memory and their number; `crc64` also takes the
//! address of its results. The guards around each allocation detect any other access.

use crate::call::{Call, answer};
use crate::module;
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CUresult};
use crate::state::{State, lock};
use crate::stream::{self, Operation};
use crate::trace::Trace;
use crate::work::Work;
use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr;

const MOST_THREADS: c_uint = 1024;

unsafe extern "C" {
    /// Runs a kernel; in `kernels.cpp`.
    fn stand_in_launch(
        name: *const c_char,
        grid_x: u32,
        block_x: u32,
        shared_bytes: u32,
        arguments: *mut *mut c_void,
        seed: u64,
    ) -> c_int;
}

/// A launch with copies of its arguments.
#[derive(Debug)]
pub(crate) struct Launch {
    name: String,
    grid: u32,
    block: u32,
    shared_bytes: u32,
    arguments: Vec<Box<[u8]>>,
}

/// A piece for a kernel; the layout is that of `kernels/`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Piece {
    source: u64,
    target: u64,
    length: u64,
}

impl Launch {
    /// The argument as a number.
    fn argument(&self, index: usize) -> Option<u64> {
        let bytes = self.arguments.get(index)?;
        let mut number = [0; 8];
        number.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(number))
    }

    fn pieces(&self, function: &str) -> (u64, u64) {
        match (self.argument(0), self.argument(1)) {
            (Some(pieces), Some(count)) => (pieces, count),
            _ => alarm!("{function}: {} does not take pieces and their number", self.name),
        }
    }

    /// Raises the alarm for an address that the kernel would access as words although it is not a
    /// multiple of their size.
    fn check_aligned(&self, function: &str, what: &str, address: u64, unit: u64) {
        if !address.is_multiple_of(unit) {
            alarm!("{function}: {what} at {address:#x} is not a multiple of {unit}");
        }
    }

    /// The size of the elements that the kernel writes to the targets of pieces, from its name.
    fn target_unit(&self) -> u64 {
        match self.name.rsplit('_').next() {
            Some("f32") => 4,
            Some("f16" | "bf16") => 2,
            _ => 1,
        }
    }

    /// The memory that the submission knows the kernel uses: the pieces and the results.
    fn arrays(&self, function: &str) -> Vec<(u64, u64)> {
        let (pieces, count) = self.pieces(function);
        self.check_aligned(function, "the list of pieces", pieces, align_of::<Piece>() as u64);
        let mut arrays = vec![(pieces, count * size_of::<Piece>() as u64)];
        if self.name.contains("crc64") {
            let Some(results) = self.argument(2) else {
                alarm!("{function}: {} does not take the place of its results", self.name);
            };
            self.check_aligned(function, "the list of results", results, size_of::<u64>() as u64);
            arrays.push((results, count * size_of::<u64>() as u64));
        }
        arrays.retain(|(_, bytes)| *bytes > 0);
        arrays
    }

    /// The ranges that a piece certainly covers. A cast's length may count elements or bytes, and
    /// its target may take half of its source's.
    fn ranges(&self, piece: Piece) -> Vec<(u64, u64)> {
        let target_bytes = match self.name.contains("cast") {
            true => piece.length.div_ceil(2),
            false => piece.length,
        };
        let target = (!self.name.contains("crc64")).then_some((piece.target, target_bytes));
        [Some((piece.source, piece.length)), target].into_iter().flatten().collect()
    }

    /// The allocations that the kernel uses; raises the alarm if it exceeds them.
    fn check(&self, function: &str, state: &State, context: usize) -> BTreeSet<u64> {
        let range = |(start, bytes)| state.device_range(function, context, start, bytes);
        let mut uses: BTreeSet<_> = self.arrays(function).into_iter().map(range).collect();
        let (pieces, count) = self.pieces(function);
        for index in 0..count {
            let place = (pieces as *const Piece).wrapping_add(index as usize);
            // SAFETY: the array is inside a live allocation, as checked above.
            let piece = unsafe { place.read_unaligned() };
            if piece.length > 0 {
                self.check_aligned(function, "a target", piece.target, self.target_unit());
                uses.extend(self.ranges(piece).into_iter().map(range));
            }
        }
        uses
    }

    pub(crate) fn run(&self, operation: &Operation, context: usize, stream: usize) {
        let function = format!("{} of {}", operation.function, self.name);
        let mut state = lock();
        if state.failed(context).is_some() {
            return; // its memory may be freed
        }
        let uses = self.check(&function, &state, context);
        let stream = state.streams.get_mut(&stream);
        if let Some(trace) = stream.and_then(|stream| stream.trace(operation.sequence)) {
            trace.uses.extend(uses);
        }
        drop(state);
        self.call(&function, operation.random.clone().below(u64::MAX));
    }

    /// Runs the kernel; the seed orders its blocks and threads.
    fn call(&self, function: &str, seed: u64) {
        let Ok(name) = CString::new(self.name.as_str()) else { return };
        let mut copies = self.arguments.clone();
        let mut arguments: Vec<*mut c_void> =
            copies.iter_mut().map(|copy| copy.as_mut_ptr().cast()).collect();
        // SAFETY: the arguments have the sizes that the kernel's PTX declares. The ranges of its
        // pieces are inside live allocations, which stay until the launch is known to be complete.
        let code = unsafe {
            let arguments = arguments.as_mut_ptr();
            let (grid, block, shared) = (self.grid, self.block, self.shared_bytes);
            stand_in_launch(name.as_ptr(), grid, block, shared, arguments, seed)
        };
        if code != 0 {
            alarm!("{function}: kernels.cpp cannot run it (it answered {code})");
        }
    }
}

/// Launches a kernel, in the order of a stream.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "these are the driver's")]
pub unsafe extern "C" fn cuLaunchKernel(
    kernel: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    handle: usize,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    answer(|| {
        let sizes = [grid_x.into(), block_x.into(), shared_bytes.into()];
        let mut call = Call::in_context("cuLaunchKernel", &sizes)?;
        if [grid_y, grid_z, block_y, block_z] != [1; 4] || !extra.is_null() {
            alarm!("{}: only grids of one dimension, without `extra`", call.function);
        }
        let function = module::function(&mut call, kernel).clone();
        if grid_x == 0 || block_x == 0 || parameters.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if block_x > MOST_THREADS || shared_bytes > function.shared_bytes {
            return Err(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
        }
        let stream = stream::named(&mut call, handle);
        // SAFETY: the driver's contract: one pointer for each of the kernel's parameters.
        let arguments = unsafe { copied(parameters, &function.parameters) };
        let name = function.name;
        let launch = Launch { name, grid: grid_x, block: block_x, shared_bytes, arguments };
        let arrays = launch.arrays(call.function);
        let context = call.context;
        let array = |(start, bytes)| call.state.device_range(call.function, context, start, bytes);
        let uses = arrays.into_iter().map(array).collect();
        let trace = Trace { module: Some(function.module), ..Trace::using(uses) };
        stream::leave(call, stream, trace, Work::Launch(launch));
        Ok(())
    })
}

/// The arguments of a launch, copied.
///
/// # Safety
/// `parameters` points to as many pointers as there are sizes, each to as many bytes.
unsafe fn copied(parameters: *mut *mut c_void, sizes: &[usize]) -> Vec<Box<[u8]>> {
    let copy = |(index, bytes): (usize, &usize)| {
        let mut copy = vec![0_u8; *bytes].into_boxed_slice();
        // SAFETY: the caller guarantees it.
        unsafe {
            let place = parameters.wrapping_add(index).read();
            ptr::copy_nonoverlapping(place.cast(), copy.as_mut_ptr(), *bytes);
        }
        copy
    };
    sizes.iter().enumerate().map(copy).collect()
}
