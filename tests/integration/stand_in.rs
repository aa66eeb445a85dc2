//! `cudarc` finds and uses the stand-in for the CUDA driver like the driver itself, through the library
//! path only. `tests/cuda-stand-in` tests the stand-in's behaviour.

// SAFETY for all blocks here: the driver's functions get pointers to locals.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use crate::common::child::{in_a_child, is_child, passes_in_a_child};
use cudarc::cufile::sys as cufile;
use cudarc::driver::sys as driver;
use std::ptr::null_mut;

#[track_caller]
fn ok(result: driver::CUresult) {
    result.result().unwrap();
}

#[test]
fn cudarc_finds_it_and_copies_with_it() {
    if !passes_in_a_child(
        "stand_in::cudarc_finds_it_and_copies_with_it",
        &[("CUDA_STAND_IN_GDS", "on")],
    ) {
        return;
    }
    unsafe {
        assert!(driver::is_culib_present() && cufile::is_culib_present());
        ok(driver::cuInit(0));
        let (mut context, mut stream, mut memory) = (null_mut(), null_mut(), 0);
        ok(driver::cuDevicePrimaryCtxRetain(&mut context, 1));
        ok(driver::cuCtxSetCurrent(context));
        ok(driver::cuStreamCreate(&mut stream, 1));
        ok(driver::cuMemAlloc_v2(&mut memory, 3));
        let (mut source, mut target) = ([1_u8, 2, 3], [0_u8; 3]);
        ok(driver::cuMemHostRegister_v2(source.as_mut_ptr().cast(), 3, 0));
        ok(driver::cuMemcpyHtoDAsync_v2(memory, source.as_ptr().cast(), 3, stream));
        ok(driver::cuStreamSynchronize(stream));
        ok(driver::cuMemcpyDtoH_v2(target.as_mut_ptr().cast(), memory, 3));
        assert_eq!(target, source);
        ok(driver::cuMemHostUnregister(source.as_mut_ptr().cast()));
        ok(driver::cuMemFree_v2(memory));
        ok(driver::cuStreamDestroy_v2(stream));
        ok(driver::cuDevicePrimaryCtxRelease_v2(1));
        let error = cufile::cuFileDriverOpen();
        assert_eq!(error.err, cufile::CUfileOpError::CU_FILE_SUCCESS);
        let mut properties = std::mem::zeroed();
        cufile::cuFileDriverGetProperties(&mut properties);
        assert_eq!(properties.nvfs.dstatusflags, 1 << 4);
        assert_eq!(properties.max_batch_io_size, 128);
    }
}

#[test]
fn a_leak_aborts_the_process() {
    if !is_child() {
        let output = in_a_child("stand_in::a_leak_aborts_the_process", &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(stderr.contains("cuda stand-in: at exit: device 0 is left with"), "{stderr}");
        return;
    }
    let mut context = null_mut();
    unsafe {
        ok(driver::cuInit(0));
        ok(driver::cuDevicePrimaryCtxRetain(&mut context, 0));
    }
}
