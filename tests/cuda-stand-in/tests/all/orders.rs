//! The environment variables work: limits, failures, times.

use crate::common::*;
use cuda_stand_in::*;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn device_memory_is_limited_aligned_and_poisoned() {
    passes(&[("MEMORY", "4096")], || {
        retain(0);
        let reported = || {
            let (mut free, mut total) = (0, 0);
            ok(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
            (free, total)
        };
        assert_eq!(reported(), (4096, 4096));
        let memory = allocate(100);
        assert_eq!((reported(), memory % 1024), ((3584, 4096), 512));
        assert_eq!(read(memory, 100), [0xA5; 100]);
        let mut other = 0;
        assert_eq!(unsafe { cuMemAlloc_v2(&mut other, 3585) }, CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(unsafe { cuMemAlloc_v2(&mut other, 0) }, CUDA_ERROR_INVALID_VALUE);
        let rest = allocate(3584);
        for memory in [memory, rest] {
            ok(cuMemFree_v2(memory));
            assert_eq!(unsafe { *(memory as *const u8) }, 0xDD);
        }
        let again = allocate(100);
        assert_ne!(again, memory);
        assert_eq!(reported(), (3584, 4096));
        let first = retain(0);
        retain(1);
        assert_eq!(reported(), (4096, 4096));
        ok(cuCtxSetCurrent(first));
        ok(cuMemFree_v2(again));
        [0, 0, 1].into_iter().for_each(release);
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
    passes(&[("CONTEXT_MS", "1000")], || {
        ok(cuInit(0));
        let begun = Instant::now();
        let others = [(); 2].map(|()| thread::spawn(|| retain(0)));
        let contexts = others.map(|other| other.join().unwrap());
        assert_eq!(contexts[0], contexts[1]);
        assert!(begun.elapsed() >= Duration::from_millis(1000));
        let begun = Instant::now();
        retain(0);
        assert!(begun.elapsed() < Duration::from_millis(1000));
        (0..3).for_each(|_| release(0));
    });
}

#[test]
fn a_machine_without_devices_says_so() {
    passes(&[("DEVICES", "0")], || assert_eq!(cuInit(0), CUDA_ERROR_NO_DEVICE));
}
