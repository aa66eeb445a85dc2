//! Every incorrect use of contexts and their objects, and every leak, raises an alarm.

use crate::common::*;
use cuda_stand_in::*;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread;

/// Registers this test's program with cuFile.
fn a_file() -> usize {
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let handle = file.as_raw_fd() as u64;
    std::mem::forget(file);
    let kind = CU_FILE_HANDLE_TYPE_OPAQUE_FD;
    let mut description = CUfileDescr { kind, handle, operations: std::ptr::null() };
    let mut handle = 0;
    let result = unsafe { cuFileHandleRegister(&mut handle, &mut description) };
    assert_eq!(result, CUfileError::SUCCESS);
    handle
}

#[test]
fn a_registration_of_another_context() {
    rings("registered for another context, without CU_MEMHOSTREGISTER_PORTABLE", || {
        retain(0);
        let memory = registered(16);
        retain(1);
        copy_in(allocate(16), memory, stream());
    });
}

#[test]
fn a_call_without_a_current_context() {
    rings("cuStreamCreate: no context is current on this thread", || {
        retain(0);
        thread::spawn(stream).join().ok();
    });
}

#[test]
fn a_call_in_a_released_context() {
    rings("the context that is current on this thread was released", || {
        retain(0);
        release(0);
        stream();
    });
}

#[test]
fn making_a_released_context_current() {
    rings("cuCtxSetCurrent: use of a destroyed context", || {
        let context = retain(0);
        release(0);
        cuCtxSetCurrent(context);
    });
}

#[test]
fn a_stream_of_another_context() {
    rings("the stream belongs to another context", || {
        retain(0);
        let stream = stream();
        retain(1);
        cuStreamSynchronize(stream);
    });
}

#[test]
fn an_event_of_another_context() {
    rings("the event belongs to another context", || {
        retain(0);
        let event = event();
        retain(1);
        cuEventRecord(event, stream());
    });
}

#[test]
fn memory_of_another_context() {
    rings("the memory belongs to another context", || {
        retain(0);
        let device = allocate(16);
        retain(1);
        cuMemsetD8Async(device, 0, 16, stream());
    });
}

#[test]
fn freeing_memory_of_another_context() {
    rings("cuMemFree_v2: the memory belongs to another context", || {
        retain(0);
        let device = allocate(16);
        retain(1);
        cuMemFree_v2(device);
    });
}

#[test]
fn a_module_of_another_context() {
    rings("the module belongs to another context", || {
        retain(0);
        let (module, _) = module();
        retain(1);
        cuModuleUnload(module);
    });
}

#[test]
fn a_kernel_of_another_context() {
    rings("cuLaunchKernel: the module belongs to another context", || {
        retain(0);
        let (_, kernel) = module();
        retain(1);
        launch(kernel, 0, 0, stream());
    });
}

#[test]
fn a_destroyed_stream() {
    rings("cuStreamQuery: use of a destroyed stream", || {
        retain(0);
        let stream = stream();
        ok(cuStreamDestroy_v2(stream));
        cuStreamQuery(stream);
    });
}

#[test]
fn a_destroyed_event() {
    rings("cuEventDestroy_v2: use of a destroyed event", || {
        retain(0);
        let event = event();
        ok(cuEventDestroy_v2(event));
        cuEventDestroy_v2(event);
    });
}

#[test]
fn a_kernel_of_an_unloaded_module() {
    rings("cuLaunchKernel: use of a destroyed function", || {
        retain(0);
        let (module, kernel) = module();
        ok(cuModuleUnload(module));
        launch(kernel, 0, 0, stream());
    });
}

#[test]
fn a_handle_of_another_kind() {
    rings("cuEventSynchronize: a stream in the place of the event", || {
        retain(0);
        cuEventSynchronize(stream());
    });
}

#[test]
fn unloading_a_module_in_use() {
    rings("cuModuleUnload: the module is still in use", || {
        retain(0);
        let ((module, kernel), other, held) = (module(), stream(), event());
        let memory = allocate(64 << 20);
        let pieces = piece(memory, memory, 64);
        // Behind work that is long enough for the launch not to be reached.
        for _ in 0..4 {
            ok(cuMemsetD8Async(memory, 1, 64 << 20, other));
        }
        ok(cuEventRecord(held, other));
        let stream = stream();
        ok(cuStreamWaitEvent(stream, held, 0));
        ok(launch(kernel, pieces, 1, stream));
        cuModuleUnload(module);
    });
}

#[test]
fn an_allocation_left_at_the_release() {
    rings("device 0 is left with 1 allocations alive (the first of 16 bytes)", || {
        retain(0);
        allocate(16);
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_registration_left_at_the_release() {
    rings("device 0 is left with 2 host registrations alive (the first of 16 bytes)", || {
        retain(0);
        registered(16);
        registered(16);
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_stream_left_at_the_release() {
    rings("device 1 is left with 1 streams alive", || {
        retain(1);
        stream();
        cuDevicePrimaryCtxRelease_v2(1);
    });
}

#[test]
fn an_event_left_at_the_release() {
    rings("device 0 is left with 1 events alive", || {
        retain(0);
        event();
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_module_left_at_the_release() {
    rings("device 0 is left with 1 modules alive", || {
        retain(0);
        module();
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_context_left_at_exit() {
    rings("at exit: device 0 is left with 1 references to its context, 1 events alive", || {
        retain(0);
        event();
    });
}

#[test]
fn a_context_left_when_another_was_released() {
    rings("at exit: device 1 is left with 2 references to its context", || {
        retain(0);
        retain(1);
        retain(1);
        release(0);
    });
}

#[test]
fn a_release_too_many() {
    rings("device 0 has no primary context: a release too many", || {
        retain(0);
        release(0);
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_file_left_at_the_release() {
    rings_with(&[("GDS", "on")], "device 0 is left with 1 cuFile handles alive", || {
        retain(0);
        a_file();
        cuDevicePrimaryCtxRelease_v2(0);
    });
}

#[test]
fn a_file_left_at_the_close() {
    rings_with(&[("GDS", "on")], "1 handles and 0 buffers are still registered", || {
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        a_file();
        cuFileDriverClose_v2();
    });
}

#[test]
fn a_file_used_after_its_end() {
    rings_with(&[("GDS", "on")], "cuFileRead: use of a destroyed cuFile handle", || {
        retain(0);
        let (file, device) = (a_file(), allocate(16));
        cuFileHandleDeregister(file);
        cuFileRead(file, device as *mut _, 16, 0, 0);
    });
}

#[test]
fn a_read_past_the_end_of_an_allocation() {
    rings_with(&[("GDS", "on")], "cuFileRead: 16 bytes go past the end", || {
        retain(0);
        cuFileRead(a_file(), allocate(16) as *mut _, 16, 0, 1);
    });
}

#[test]
fn freeing_what_is_registered_with_cufile() {
    rings_with(&[("GDS", "on")], "the memory is still registered with cuFile", || {
        retain(0);
        let device = allocate(1024);
        assert_eq!(cuFileBufRegister((device + 512) as *const _, 512, 0), CUfileError::SUCCESS);
        cuMemFree_v2(device);
    });
}

#[test]
fn deregistering_what_cufile_does_not_know() {
    rings_with(&[("GDS", "on")], "is not registered with cuFile", || {
        retain(0);
        cuFileBufDeregister(allocate(16) as *const _);
    });
}

#[test]
fn an_order_that_says_nothing() {
    rings_with(&[("FAIL", "cuMemAlloc:1:CUDA_ERROR_OUT_OF_MEMORY")], "CUDA_STAND_IN_FAIL", || {
        retain(0);
    });
}
