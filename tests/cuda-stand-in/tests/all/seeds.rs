//! The guarantees of the driver about the order of operations hold with every seed, and no others do.

use crate::common::*;
use cuda_stand_in::*;
use std::collections::BTreeSet;
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
        // On a busy machine a copy rarely ends at once, so there are as many rounds as it takes.
        let is_enough = |seen: &BTreeSet<([bool; 2], Vec<usize>)>| {
            let late = |order: &[usize; 2]| seen.contains(&([false; 2], order.to_vec()));
            seen.iter().any(|(at_once, _)| at_once.contains(&true))
                && [[0, 1], [1, 0]].iter().all(late)
        };
        let round = || {
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
                while order.len() < 2 && begun.elapsed() < Duration::from_secs(300) {
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
            })
        };
        let mut rounds = 0;
        while rounds < 50 && !is_enough(&seen.borrow()) {
            round();
            rounds += 1;
        }
        let seen = seen.into_inner();
        // At once, and late; and late, either one first.
        assert!(seen.iter().any(|(at_once, _)| at_once.contains(&true)), "{seen:?}");
        for order in [vec![0, 1], vec![1, 0]] {
            assert!(seen.contains(&([false; 2], order)), "{seen:?}");
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
            let mut bytes = [0_u8; 16];
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
fn contexts_come_and_go_on_many_threads() {
    passes(&[("CONTEXT_MS", "0")], || {
        let threads = [0, 0, 1, 0].map(|device| {
            thread::spawn(move || {
                for _ in 0..100 {
                    retain(device);
                    let (stream, memory) = (stream(), allocate(16));
                    ok(cuMemsetD8Async(memory, 1, 16, stream));
                    ok(cuStreamSynchronize(stream));
                    ok(cuMemFree_v2(memory));
                    ok(cuStreamDestroy_v2(stream));
                    release(device);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
