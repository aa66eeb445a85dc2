//! What the driver promises holds under every seed, and what the environment orders comes.

// SAFETY, for all blocks here: the pointers are to locals, or to memory that the scenario keeps.
#![allow(clippy::undocumented_unsafe_blocks)]

mod common;

use common::*;
use cuda_stand_in::*;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::fs;
use std::ptr::null;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the scenario in one process with many seeds.
fn with_seeds(seeds: u64, scenario: impl Fn()) {
    order("CONTEXT_MS", 0);
    for seed in 0..seeds {
        order("SEED", seed);
        retain(0);
        scenario();
        release(0);
    }
}

#[test]
fn a_stream_keeps_its_order_under_every_seed() {
    passes(&[], || {
        with_seeds(200, || {
            let (stream, one, two) = (stream(), allocate(4096), allocate(4096));
            let source = registered(4096);
            source.fill(9);
            for round in 0..8 {
                ok(copy_in(one, source, stream));
                ok(cuMemcpyDtoDAsync_v2(two, one, 4096, stream));
                ok(cuMemsetD8Async(one, round, 100, stream));
            }
            let target = registered(4096);
            let place = target.as_mut_ptr().cast();
            ok(unsafe { cuMemcpyDtoHAsync_v2(place, two, 4096, stream) });
            ok(cuStreamSynchronize(stream));
            assert!(target.iter().all(|byte| *byte == 9));
            assert_eq!(read(one, 101), [[7; 100].as_slice(), &[9]].concat());
            source.fill(1); // all is known to be done
            unregister(source);
            unregister(target);
            for memory in [one, two] {
                ok(cuMemFree_v2(memory));
            }
            ok(cuStreamDestroy_v2(stream));
        });
    });
}

#[test]
fn a_stream_waits_for_the_event_of_another_under_every_seed() {
    passes(&[], || {
        with_seeds(200, || {
            let (one, two, event) = (stream(), stream(), event());
            let (memory, copied) = (allocate(300_000), allocate(300_000));
            let source = registered(300_000);
            source.fill(5);
            ok(copy_in(memory, source, one));
            ok(cuEventRecord(event, one));
            ok(cuStreamWaitEvent(two, event, 0));
            ok(cuEventDestroy_v2(event));
            ok(cuMemcpyDtoDAsync_v2(copied, memory, 300_000, two));
            ok(cuStreamSynchronize(two));
            // The second stream is done, so the first one's copy is known to be.
            unregister(source);
            assert!(read(copied, 300_000).iter().all(|byte| *byte == 5));
            for memory in [memory, copied] {
                ok(cuMemFree_v2(memory));
            }
            ok(cuStreamDestroy_v2(one));
            ok(cuStreamDestroy_v2(two));
        });
    });
}

#[test]
fn streams_are_out_of_step_with_each_other_and_with_the_caller() {
    passes(&[], || {
        let seen = std::cell::RefCell::new(BTreeSet::new());
        with_seeds(100, || {
            let (streams, events) = ([stream(), stream()], [event(), event()]);
            let (memory, source) = (allocate(512), registered(256));
            for index in 0..2 {
                let target = memory + 256 * index as u64;
                ok(copy_in(target, source, streams[index]));
                ok(cuEventRecord(events[index], streams[index]));
            }
            let at_once = events.map(|event| cuEventQuery(event) == CUDA_SUCCESS);
            // Nobody waits, and still it gets done.
            let begun = Instant::now();
            let mut order = Vec::new();
            while order.len() < 2 && begun.elapsed() < Duration::from_secs(10) {
                for (index, event) in events.into_iter().enumerate() {
                    if !order.contains(&index) && cuEventQuery(event) == CUDA_SUCCESS {
                        order.push(index);
                    }
                }
            }
            assert_eq!(order.len(), 2, "it hangs");
            seen.borrow_mut().insert((at_once, order));
            unregister(source);
            ok(cuMemFree_v2(memory));
            streams.into_iter().for_each(|stream| ok(cuStreamDestroy_v2(stream)));
            events.into_iter().for_each(|event| ok(cuEventDestroy_v2(event)));
        });
        let seen = seen.into_inner();
        for wanted in [[false, false], [true, false], [false, true], [true, true]] {
            assert!(seen.iter().any(|(at_once, _)| *at_once == wanted), "{wanted:?}: {seen:?}");
        }
        for wanted in [[0, 1], [1, 0]] {
            let late = |order: &Vec<usize>| *order == wanted;
            assert!(
                seen.iter().any(|(at_once, order)| *at_once == [false; 2] && late(order)),
                "{seen:?}"
            );
        }
    });
}

#[test]
fn a_copy_without_a_stream_may_come_late_for_one_that_does_not_wait_for_it() {
    passes(&[], || {
        let seen = std::cell::RefCell::new(BTreeSet::new());
        with_seeds(100, || {
            let (stream, memory, target) = (stream(), allocate(16), registered(16));
            ok(copy_in_now(memory, &[3; 16]));
            let place = target.as_mut_ptr().cast();
            ok(unsafe { cuMemcpyDtoHAsync_v2(place, memory, 16, stream) });
            ok(cuStreamSynchronize(stream));
            seen.borrow_mut().insert(target[0]);
            assert_eq!(read(memory, 16), [3; 16]);
            unregister(target);
            ok(cuMemFree_v2(memory));
            ok(cuStreamDestroy_v2(stream));
        });
        assert_eq!(seen.into_inner(), BTreeSet::from([3, 0xA5]));
    });
}

#[test]
fn a_blocking_stream_keeps_the_order_with_calls_that_name_none() {
    passes(&[], || {
        with_seeds(100, || {
            let stream = got(|stream| unsafe { cuStreamCreate(stream, 0) });
            let (memory, copied) = (allocate(16), allocate(16));
            ok(copy_in_now(memory, &[3; 16]));
            ok(cuMemcpyDtoDAsync_v2(copied, memory, 16, stream));
            ok(cuMemsetD8_v2(memory, 4, 16));
            ok(cuMemcpyDtoDAsync_v2(copied + 8, memory, 8, stream));
            let mut bytes = [0; 16];
            ok(unsafe { cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), copied, 16) });
            assert_eq!(bytes, [3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]);
            for memory in [memory, copied] {
                ok(cuMemFree_v2(memory));
            }
            ok(cuStreamDestroy_v2(stream));
        });
    });
}

#[test]
fn large_copies_in_pieces_arrive_whole() {
    passes(&[], || {
        with_seeds(12, || {
            let (stream, memory, source) = (stream(), allocate(5_000_001), registered(5_000_001));
            for (index, byte) in source.iter_mut().enumerate() {
                *byte = (index % 251) as u8;
            }
            ok(copy_in(memory, source, stream));
            ok(cuStreamSynchronize(stream));
            assert!(read(memory, source.len()) == source);
            unregister(source);
            ok(cuMemFree_v2(memory));
            ok(cuStreamDestroy_v2(stream));
        });
    });
}

#[test]
fn device_memory_is_limited_aligned_and_poisoned() {
    passes(&[("MEMORY", "4096")], || {
        retain(0);
        let told = || {
            let (mut free, mut total) = (0, 0);
            ok(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
            (free, total)
        };
        assert_eq!(told(), (4096, 4096));
        let memory = allocate(100);
        assert_eq!((told(), memory % 1024), ((3584, 4096), 512));
        assert_eq!(read(memory, 100), [0xA5; 100]);
        let mut other = 0;
        assert_eq!(unsafe { cuMemAlloc_v2(&mut other, 3585) }, CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(unsafe { cuMemAlloc_v2(&mut other, 0) }, CUDA_ERROR_INVALID_VALUE);
        let rest = allocate(3584);
        retain(1);
        assert_eq!(told(), (4096, 4096));
        ok(cuCtxSetCurrent(got(|context| unsafe { cuDevicePrimaryCtxRetain(context, 0) })));
        for memory in [memory, rest] {
            ok(cuMemFree_v2(memory));
            assert_eq!(unsafe { *(memory as *const u8) }, 0xDD);
        }
        assert_ne!(allocate(100), memory);
        assert_eq!(told(), (3584, 4096));
        std::process::exit(0); // not this test's matter
    });
}

#[test]
fn a_portable_registration_serves_every_context() {
    passes(&[], || {
        let memory = vec![8; 16].leak();
        let first = retain(0);
        ok(register(memory, CU_MEMHOSTREGISTER_PORTABLE));
        retain(1);
        let (device, stream) = (allocate(16), stream());
        ok(copy_in(device, memory, stream));
        ok(cuStreamSynchronize(stream));
        assert_eq!(read(device, 16), [8; 16]);
        ok(cuMemFree_v2(device));
        ok(cuStreamDestroy_v2(stream));
        release(1);
        ok(cuCtxSetCurrent(first));
        unregister(memory);
        release(0);
    });
}

#[test]
fn calls_fail_when_ordered() {
    let orders = "cuMemAlloc_v2:2:CUDA_ERROR_OUT_OF_MEMORY, \
                  cuMemHostRegister_v2:*:CUDA_ERROR_NOT_PERMITTED,cuMemFree_v2:1:CUDA_ERROR_UNKNOWN";
    passes(&[("FAIL", orders)], || {
        retain(0);
        let (device, mut other) = (allocate(16), 0);
        assert_eq!(unsafe { cuMemAlloc_v2(&mut other, 16) }, CUDA_ERROR_OUT_OF_MEMORY);
        let third = allocate(16);
        let mut memory = [6; 16];
        for _ in 0..2 {
            assert_eq!(register(&mut memory, 0), CUDA_ERROR_NOT_PERMITTED);
        }
        // Without registration there are still the copies that name no stream.
        ok(copy_in_now(device, &memory));
        memory.fill(7);
        assert_eq!(read(device, 16), [6; 16]);
        // What could not be freed is not the caller's leak.
        assert_eq!(cuMemFree_v2(device), CUDA_ERROR_UNKNOWN);
        ok(cuMemFree_v2(third));
        release(0);
    });
}

#[test]
fn work_fails_when_ordered_and_the_context_with_it() {
    let orders = "cuMemcpyHtoDAsync_v2@run:3:CUDA_ERROR_ILLEGAL_ADDRESS";
    passes(&[("FAIL", orders)], || {
        for seed in 0..50 {
            order("SEED", seed);
            retain(0);
            let (stream, event, memory, source) =
                (stream(), event(), allocate(1 << 20), registered(1 << 20));
            let copies: Vec<_> = (0..5).map(|_| copy_in(memory, source, stream)).collect();
            assert_eq!(copies[..3], [CUDA_SUCCESS; 3]);
            assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
            source.fill(1); // no work runs any more
            for result in [
                cuEventRecord(event, stream),
                cuEventQuery(event),
                cuCtxSynchronize(),
                cuMemFree_v2(memory),
                cuStreamDestroy_v2(stream),
                cuEventDestroy_v2(event),
                cuMemHostUnregister(source.as_mut_ptr().cast()),
            ] {
                assert_eq!(result, CUDA_ERROR_ILLEGAL_ADDRESS);
            }
            release(0);
        }
    });
}

#[test]
fn what_a_failed_context_did_not_try_to_free_is_a_leak() {
    let orders = [("FAIL", "cuMemsetD8Async@run:1:CUDA_ERROR_ECC_UNCORRECTABLE")];
    rings_with(&orders, "device 0 is left with 1 allocations alive", || {
        retain(0);
        let (stream, memory) = (stream(), allocate(16));
        ok(cuMemsetD8Async(memory, 0, 16, stream));
        assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_ECC_UNCORRECTABLE);
        assert_eq!(cuStreamDestroy_v2(stream), CUDA_ERROR_ECC_UNCORRECTABLE);
        release(0);
    });
}

#[test]
fn one_bit_is_flipped_when_ordered() {
    passes(&[("FLIP", "2")], || {
        retain(0);
        let memory = allocate(3 << 12);
        for part in 0..3 {
            ok(copy_in_now(memory + (part << 12), &[0; 1 << 12]));
        }
        let ones = read(memory, 3 << 12)
            .chunks(1 << 12)
            .map(|part| part.iter().map(|byte| byte.count_ones()).sum::<u32>())
            .collect::<Vec<_>>();
        assert_eq!(ones, [0, 1, 0]);
        ok(cuMemFree_v2(memory));
        release(0);
    });
}

#[test]
fn calls_are_logged() {
    let path = format!("{}/calls.log", env!("CARGO_TARGET_TMPDIR"));
    fs::remove_file(&path).ok();
    passes(&[("LOG", &path)], || {
        retain(0);
        ok(cuMemFree_v2(allocate(12345)));
        release(0);
    });
    if let Ok(log) = fs::read_to_string(&path) {
        let line = log.lines().find(|line| line.starts_with("cuMemAlloc_v2 ")).unwrap();
        assert!(line.ends_with(" 12345"), "{line}");
    }
}

#[test]
fn all_is_fresh_after_the_last_release() {
    passes(&[("FAIL", "cuMemAlloc_v2:1:CUDA_ERROR_OUT_OF_MEMORY")], || {
        for devices in 1..4 {
            order("DEVICES", devices);
            let first = retain(0);
            assert_eq!(got(|count| unsafe { cuDeviceGetCount(count) }), devices);
            order("DEVICES", 9); // of no effect as long as a context lives
            assert_eq!(got(|count| unsafe { cuDeviceGetCount(count) }), devices);
            let mut memory = 0;
            assert_eq!(unsafe { cuMemAlloc_v2(&mut memory, 16) }, CUDA_ERROR_OUT_OF_MEMORY);
            ok(cuMemFree_v2(allocate(16)));
            assert_eq!(retain(0), first);
            release(0);
            release(0);
            let mut active = 1;
            let result = unsafe { cuDevicePrimaryCtxGetState(0, &mut 0, &mut active) };
            assert_eq!((result, active), (CUDA_SUCCESS, 0));
        }
    });
}

#[test]
fn creating_a_context_takes_as_long_as_ordered() {
    passes(&[("CONTEXT_MS", "120")], || {
        ok(cuInit(0));
        let begun = Instant::now();
        let others = [(); 2].map(|()| thread::spawn(|| retain(0)));
        let contexts = others.map(|other| other.join().unwrap());
        assert_eq!(contexts[0], contexts[1]);
        assert!(begun.elapsed() >= Duration::from_millis(120));
        let begun = Instant::now();
        retain(0);
        assert!(begun.elapsed() < Duration::from_millis(100));
        (0..3).for_each(|_| release(0));
    });
}

#[test]
fn a_machine_without_devices_says_so() {
    passes(&[("DEVICES", "0")], || assert_eq!(cuInit(0), CUDA_ERROR_NO_DEVICE));
}

#[test]
fn pointers_tell_what_they_are() {
    fn attribute<T: Default>(attribute: u32, pointer: u64) -> T {
        got(|value: *mut T| unsafe { cuPointerGetAttribute(value.cast(), attribute, pointer) })
    }
    passes(&[], || {
        let context = retain(1);
        let memory = allocate(1000);
        let inside = memory + 999;
        assert_eq!(
            attribute::<u32>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inside),
            CU_MEMORYTYPE_DEVICE
        );
        assert_eq!(attribute::<i32>(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, inside), 1);
        assert_eq!(attribute::<usize>(CU_POINTER_ATTRIBUTE_CONTEXT, inside), context);
        assert_eq!(attribute::<u64>(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, inside), memory);
        assert_eq!(attribute::<usize>(CU_POINTER_ATTRIBUTE_RANGE_SIZE, inside), 1000);
        let host = registered(8);
        let kind = attribute::<u32>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host.as_ptr() as u64);
        assert_eq!(kind, CU_MEMORYTYPE_HOST);
        unregister(host);
        ok(cuMemFree_v2(memory));
        for pointer in [host.as_ptr() as u64, memory] {
            let (mut value, kind) = (0_u64, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
            let place = (&raw mut value).cast();
            let result = unsafe { cuPointerGetAttribute(place, kind, pointer) };
            assert_eq!(result, CUDA_ERROR_INVALID_VALUE);
        }
        release(1);
    });
}

#[test]
fn errors_have_names_and_texts() {
    let mut text = null();
    ok(unsafe { cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &mut text) });
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"CUDA_ERROR_OUT_OF_MEMORY");
    ok(unsafe { cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &mut text) });
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"out of memory");
    assert_eq!(unsafe { cuGetErrorName(77, &mut text) }, CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn modules_are_read_and_kernels_found() {
    passes(&[], || {
        retain(0);
        let (module, _) = module();
        let mut kernel = 0;
        let result = unsafe { cuModuleGetFunction(&mut kernel, module, c"ringload_b".as_ptr()) };
        assert_eq!(result, CUDA_ERROR_NOT_FOUND);
        let (mut other, image) = (0, c"\x7fELF".as_ptr().cast());
        assert_eq!(unsafe { cuModuleLoadData(&mut other, image) }, CUDA_ERROR_INVALID_IMAGE);
        ok(cuModuleUnload(module));
        release(0);
    });
}

fn properties() -> CUfileDrvProps {
    let mut properties = CUfileDrvProps::default();
    let result = unsafe { cuFileDriverGetProperties(&mut properties) };
    assert_eq!(result, CUfileError::SUCCESS);
    properties
}

#[test]
fn cufile_is_off_unless_ordered() {
    passes(&[], || {
        let error = cuFileDriverOpen();
        assert_eq!(error.err, CU_FILE_DRIVER_NOT_INITIALIZED);
    });
}

#[test]
fn cufile_tells_when_it_only_falls_back() {
    passes(&[("GDS", "compat")], || {
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        assert_eq!((properties().nvfs_version, properties().status_flags), ([0, 0], 0));
        assert_eq!(cuFileDriverClose(), CUfileError::SUCCESS);
    });
}

#[test]
fn cufile_reads_into_device_memory() {
    let orders = [("GDS", "on"), ("FAIL", "cuFileRead:1:CU_FILE_IO_NOT_SUPPORTED")];
    passes(&orders, || {
        use std::os::fd::AsRawFd;
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        assert_ne!(properties().status_flags, 0);
        retain(0);
        let path = std::env::current_exe().unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = fs::File::open(path).unwrap();
        let (kind, handle) = (CU_FILE_HANDLE_TYPE_OPAQUE_FD, file.as_raw_fd() as u64);
        let mut description = CUfileDescr { kind, handle, operations: null() };
        let mut handle = 0;
        let result = unsafe { cuFileHandleRegister(&mut handle, &mut description) };
        assert_eq!(result, CUfileError::SUCCESS);
        let memory = allocate(1_000_003);
        let base = memory as *mut c_void;
        assert_eq!(cuFileBufRegister(base, 1_000_003, 0), CUfileError::SUCCESS);
        let failed = -(CU_FILE_IO_NOT_SUPPORTED as isize);
        assert_eq!(cuFileRead(handle, base, 1_000_000, 77, 3), failed);
        let (mut done, mut short) = (0, false);
        while done < 1_000_000 {
            let left = 1_000_000 - done;
            let place = (77 + done as i64, 3 + done as i64);
            let read = cuFileRead(handle, base, left.min(20_000), place.0, place.1);
            assert!(read > 0, "{read}");
            short |= (read as usize) < left.min(20_000);
            done += read as usize;
        }
        assert!(short, "no read was cut short");
        assert!(read(memory, 1_000_003)[3..] == bytes[77..1_000_077]);
        assert_eq!(cuFileBufDeregister(base), CUfileError::SUCCESS);
        cuFileHandleDeregister(handle);
        ok(cuMemFree_v2(memory));
        release(0);
        assert_eq!(cuFileDriverClose_v2(), CUfileError::SUCCESS);
    });
}
