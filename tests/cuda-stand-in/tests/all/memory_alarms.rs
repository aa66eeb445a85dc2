//! Every incorrect use of memory raises one alarm that names it.

use crate::common::*;
use cuda_stand_in::*;
use std::ffi::CString;
use std::thread;
use std::time::{Duration, Instant};

const COPIED: u8 = 0x5a;

/// Waits until a copy has filled device memory with [`COPIED`], without asking the driver: the
/// stand-in's device memory is memory of this process.
fn until_copied(device: u64, bytes: usize) {
    let begun = Instant::now();
    let at = |index: usize| unsafe { (device as *const u8).add(index).read_volatile() };
    while (0..bytes).any(|index| at(index) != COPIED) {
        assert!(begun.elapsed() < Duration::from_secs(300), "the copy hangs");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_copy_from_unregistered_memory() {
    rings("16 bytes of host memory are not registered", || {
        retain(0);
        copy_in(allocate(16), &[0; 16], stream());
    });
}

#[test]
fn a_copy_to_unregistered_memory() {
    rings("16 bytes of host memory are not registered", || {
        retain(0);
        let (mut memory, device, stream) = ([0; 16], allocate(16), stream());
        unsafe { cuMemcpyDtoHAsync_v2(memory.as_mut_ptr().cast(), device, 16, stream) };
    });
}

#[test]
fn a_copy_across_two_registrations() {
    rings("host memory spans two registrations", || {
        retain(0);
        let memory = vec![0; 64].leak();
        let (one, two) = memory.split_at_mut(32);
        ok(register(one, 0));
        ok(register(two, 0));
        copy_in(allocate(64), memory, stream());
    });
}

#[test]
fn a_copy_past_the_end_of_a_registration() {
    rings("host memory goes past the end of its registration", || {
        retain(0);
        let memory = vec![0; 64].leak();
        ok(register(&mut memory[..32], 0));
        copy_in(allocate(64), memory, stream());
    });
}

#[test]
fn a_copy_from_before_a_registration() {
    rings("host memory begins before the registration", || {
        retain(0);
        let memory = vec![0; 64].leak();
        ok(register(&mut memory[32..], 0));
        copy_in_now(allocate(64), memory);
    });
}

#[test]
fn a_slot_rewritten_before_its_event() {
    rings("the source of 4096 bytes was rewritten", || {
        retain(0);
        let (memory, device, stream, event) = (registered(4096), allocate(4096), stream(), event());
        ok(copy_in(device, memory, stream));
        ok(cuEventRecord(event, stream));
        memory[4095] = 1;
        ok(cuEventSynchronize(event));
    });
}

#[test]
fn a_slot_rewritten_after_the_event_of_another_copy() {
    rings("the source of 4096 bytes was rewritten", || {
        retain(0);
        let (memory, device, stream, event) = (registered(8192), allocate(8192), stream(), event());
        ok(copy_in(device, &memory[..4096], stream));
        ok(cuEventRecord(event, stream));
        ok(copy_in(device + 4096, &memory[4096..], stream));
        ok(cuEventSynchronize(event));
        memory[0] = 1; // this one's event was waited for
        memory[4096] = 1; // this one's was not
        ok(cuStreamSynchronize(stream));
    });
}

#[test]
fn a_slot_rewritten_before_anybody_asked() {
    rings("rewritten before anybody asked whether its copy was done", || {
        retain(0);
        let (memory, device, stream) = (registered(64), allocate(64), stream());
        memory.fill(COPIED);
        ok(copy_in(device, memory, stream));
        until_copied(device, 64); // the copy is done, but who knows
        memory[63] = 1;
        ok(cuStreamSynchronize(stream));
    });
}

#[test]
fn a_slot_unmapped_before_its_event() {
    rings("the source of 4096 bytes was unmapped", || {
        retain(0);
        let (protection, flags) = (3, 0x22); // readable and writable, private and anonymous
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        unsafe { memory.cast::<u8>().write_bytes(COPIED, 4096) };
        ok(cuMemHostRegister_v2(memory, 4096, 0));
        let (device, stream) = (allocate(4096), stream());
        ok(cuMemcpyHtoDAsync_v2(device, memory, 4096, stream));
        until_copied(device, 4096); // this is about the end of the copy
        unsafe { libc::munmap(memory, 4096) };
        ok(cuStreamSynchronize(stream));
    });
}

#[test]
fn unregistering_what_a_copy_uses() {
    rings("cuMemHostUnregister: the memory is still in use", || {
        retain(0);
        let memory = registered(16);
        ok(copy_in(allocate(16), memory, stream()));
        unregister(memory);
    });
}

#[test]
fn unregistering_what_a_copy_used_that_nobody_asked_about() {
    rings("cuMemHostUnregister: the memory is still in use", || {
        retain(0);
        let (memory, device) = (registered(16), allocate(16));
        memory.fill(COPIED);
        ok(copy_in(device, memory, stream()));
        until_copied(device, 16);
        unregister(memory);
    });
}

#[test]
fn freeing_what_a_copy_uses() {
    rings("cuMemFree_v2: the memory is still in use", || {
        retain(0);
        let device = allocate(16);
        ok(copy_in(device, registered(16), stream()));
        cuMemFree_v2(device);
    });
}

#[test]
fn freeing_twice() {
    rings("was freed before", || {
        retain(0);
        let device = allocate(16);
        ok(cuMemFree_v2(device));
        cuMemFree_v2(device);
    });
}

#[test]
fn freeing_the_middle_of_an_allocation() {
    rings("is not the start of an allocation", || {
        retain(0);
        cuMemFree_v2(allocate(1024) + 512);
    });
}

#[test]
fn registering_twice() {
    rings("cuMemHostRegister_v2: the range overlaps one that is registered", || {
        retain(0);
        let memory = registered(64);
        register(&mut memory[32..], 0);
    });
}

#[test]
fn registering_around_a_registration() {
    rings("cuMemHostRegister_v2: the range overlaps one that is registered", || {
        retain(0);
        let memory = vec![0; 64].leak();
        ok(register(&mut memory[16..32], 0));
        register(memory, 0);
    });
}

#[test]
fn registering_device_memory() {
    rings("cuMemHostRegister_v2: the range is device memory", || {
        retain(0);
        cuMemHostRegister_v2(allocate(64) as *mut _, 64, 0);
    });
}

#[test]
fn unregistering_what_is_not_registered() {
    rings("is not the start of registered memory", || {
        retain(0);
        unregister(&mut registered(64)[32..]);
    });
}

#[test]
fn a_copy_past_the_end_of_an_allocation() {
    rings("17 bytes go past the end of an allocation, 16 are left", || {
        retain(0);
        copy_in(allocate(32) + 16, &registered(32)[..17], stream());
    });
}

#[test]
fn a_fill_of_freed_memory() {
    rings("is freed memory, outside all live allocations", || {
        retain(0);
        let device = allocate(32);
        ok(cuMemFree_v2(device));
        cuMemsetD8_v2(device, 0, 32);
    });
}

#[test]
fn a_copy_into_host_memory() {
    rings("is not device memory, outside all live allocations", || {
        retain(0);
        let memory = registered(32);
        copy_in(memory.as_ptr() as u64, memory, stream());
    });
}

#[test]
fn a_write_just_outside_an_allocation() {
    rings("something wrote just outside the allocation of 100 bytes", || {
        retain(0);
        let device = allocate(100);
        unsafe { *((device + 100) as *mut u8) = 1 };
        cuMemFree_v2(device);
    });
}

#[test]
fn a_kernel_with_pieces_outside_memory() {
    rings("cuLaunchKernel: 48 bytes go past the end of an allocation, 24 are left", || {
        retain(0);
        let (_, kernel) = module();
        launch(kernel, piece(0, 0, 0), 2, stream());
    });
}

#[test]
fn a_kernel_with_a_source_outside_memory() {
    rings("cuLaunchKernel of ringload_unheard_of: 65 bytes go past the end", || {
        retain(0);
        let (_, kernel) = module();
        let (source, target) = (allocate(64), allocate(65));
        let stream = stream();
        ok(launch(kernel, piece(source, target, 65), 1, stream));
        cuStreamSynchronize(stream);
    });
}

#[test]
fn a_kernel_with_a_target_outside_memory() {
    rings("cuLaunchKernel of ringload_unheard_of: 64 bytes go past the end", || {
        retain(0);
        let (_, kernel) = module();
        let (source, target) = (allocate(64), allocate(64));
        let stream = stream();
        ok(launch(kernel, piece(source, target + 1, 64), 1, stream));
        cuStreamSynchronize(stream);
    });
}

#[test]
fn a_kernel_that_nobody_wrote() {
    rings("kernels.cpp cannot run it", || {
        retain(0);
        let (_, kernel) = module();
        let memory = allocate(64);
        let stream = stream();
        ok(launch(kernel, piece(memory, memory, 64), 1, stream));
        cuStreamSynchronize(stream);
    });
}

/// A GPU faults at a word whose address is not a multiple of its size; a processor does not.
#[test]
fn a_list_of_pieces_that_is_not_aligned() {
    rings("the list of pieces at", || {
        retain(0);
        let (_, kernel) = module();
        ok(launch(kernel, allocate(64) + 4, 1, stream()));
    });
}

#[test]
fn a_target_of_a_cast_that_is_not_aligned() {
    rings("a target at", || {
        retain(0);
        let text = CString::new(
            ".version 8.0\n.target sm_70\n\
             .visible .entry ringload_cast_f16_f32(.param .u64 a, .param .u32 b) { ret; }",
        );
        let text = text.unwrap();
        let module = got(|module| unsafe { cuModuleLoadData(module, text.as_ptr().cast()) });
        let name = c"ringload_cast_f16_f32".as_ptr();
        let kernel = got(|kernel| unsafe { cuModuleGetFunction(kernel, module, name) });
        let memory = allocate(4096);
        ok(launch(kernel, piece(memory, memory + 1026, 8), 1, stream()));
        ok(cuCtxSynchronize());
    });
}

#[test]
fn memory_that_is_unmapped_while_it_is_registered() {
    rings("the memory was unmapped before", || {
        retain(0);
        // SAFETY: a new mapping, which nothing but this test uses.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(std::ptr::null_mut(), 8192, protection, flags, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            ok(cuMemHostRegister_v2(memory, 8192, 0));
            libc::munmap(memory, 8192);
            cuMemHostUnregister(memory);
        }
    });
}

/// The driver does not survive a fork. The child of a program may only learn that.
#[test]
fn a_call_in_a_child_of_the_process() {
    rings("cuMemAlloc_v2: called in a child of the process that started the driver", || {
        retain(0);
        // SAFETY: the child calls nothing but the stand-in, whose lock no other thread holds.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                assert_eq!(cuInit(0), CUDA_ERROR_NOT_INITIALIZED);
                let mut memory = 0;
                cuMemAlloc_v2(&mut memory, 16);
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            if libc::WIFSIGNALED(status) {
                libc::raise(libc::WTERMSIG(status)); // the child's end is that of the test
            }
        }
    });
}
