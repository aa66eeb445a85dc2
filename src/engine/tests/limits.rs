//! The memory limit is never exceeded, memory that a caller holds is never reused, and a caller that
//! drops its tensors never gets an error.

use super::{HANG_LIMIT, Rig, loader};
use crate::error::{ErrorKind, Size};
use crate::load::Loader;
use crate::options::{MemoryLimit, Order};
use crate::source::memory::Fault;
use crate::tensor::Tensor;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const TENSOR_BYTES: usize = 40_000;
const PATIENCE: Duration = Duration::from_millis(150);

/// Equal tensors, each an extent of its own under [`four`].
pub(super) fn equal() -> Rig {
    Rig::new(&[TENSOR_BYTES; 24], 0, 4096)
}

/// A limit of four tensors of [`equal`].
pub(super) fn four() -> Loader {
    loader().memory_limit(MemoryLimit::Bytes(4 * TENSOR_BYTES as u64)).hold_timeout(PATIENCE)
}

#[test]
fn any_limit_from_the_smallest_on_brings_every_tensor_in_either_order() {
    let rig = Rig::mixed(4096);
    let largest = rig.checkpoint.tensors().iter().map(|t| t.len_bytes()).max().unwrap();
    let limits = [
        MemoryLimit::Min,
        MemoryLimit::Bytes(largest),
        MemoryLimit::Bytes(largest + 1),
        MemoryLimit::Bytes(100_000),
        MemoryLimit::Bytes(1 << 20),
        MemoryLimit::Bytes(1 << 40),
    ];
    for limit in limits {
        for order in [Order::Completion, Order::File] {
            for engines in [1, 2] {
                let loader = loader().memory_limit(limit).order(order.clone()).engines(engines);
                let summary = rig.load_well(&loader);
                let named = summary.memory_limit_bytes.unwrap();
                assert!(summary.ring_bytes <= named + 2 * 4096, "{limit}: {summary:?}");
            }
        }
    }
}

#[test]
fn a_limit_below_the_largest_tensor_is_refused_before_anything_is_read() {
    let rig = equal();
    let loader = loader().memory_limit(MemoryLimit::Bytes(TENSOR_BYTES as u64 - 1));
    let error = loader.stream_checkpoint(Arc::clone(&rig.checkpoint)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(error.to_string().contains("39999 bytes"), "{error}");
    assert!(rig.seen().is_empty());
}

#[test]
fn file_order_is_kept_however_reads_complete() {
    for loader in [loader(), four(), loader().memory_limit(MemoryLimit::Min)] {
        let rig = equal();
        // Early reads are asked again and again, so that late ones complete first.
        rig.script(|_, at, _| match at % 3 {
            0 => Fault::Short(1000),
            _ => Fault::None,
        });
        let stream = rig.stream(&loader.order(Order::File).engines(2));
        let order: Vec<usize> = stream.map(|tensor| tensor.unwrap().index()).collect();
        assert_eq!(order, (0..24).collect::<Vec<_>>());
    }
}

#[test]
fn a_consumer_that_holds_everything_gets_an_error_and_keeps_its_tensors_intact() {
    for order in [Order::Completion, Order::File] {
        let rig = equal();
        let mut stream = rig.stream(&four().order(order.clone()));
        let began = Instant::now();
        let mut held: Vec<Tensor> = Vec::new();
        let error = loop {
            match stream.next().unwrap() {
                Ok(tensor) => held.push(tensor),
                Err(error) => break error,
            }
        };
        let took = began.elapsed();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        assert!(took >= PATIENCE && took < HANG_LIMIT, "after {took:?}");
        assert!(!held.is_empty() && held.len() <= 4);
        let ring = stream.ring().upgrade().unwrap();
        let named = format!(
            "take {} of the ring's {} and",
            Size(ring.usage().bytes as u64),
            Size(ring.capacity() as u64)
        );
        assert!(error.to_string().contains(&named), "{error}");
        assert!(stream.next().is_none());
        drop((stream, ring));
        assert!(held.iter().all(|tensor| rig.is_intact(tensor)), "overwritten in a user's hand");
    }
}

/// Held tensors do not change while all others pass through the rest of the ring.
#[test]
fn a_held_tensor_is_never_overwritten_by_later_ones() {
    let rig = equal();
    let mut stream = rig.stream(&four());
    let held = [stream.next().unwrap().unwrap(), stream.next().unwrap().unwrap()];
    let mut passed = 0;
    for tensor in &mut stream {
        assert!(rig.is_intact(&tensor.unwrap()));
        assert!(held.iter().all(|tensor| rig.is_intact(tensor)), "after {passed} more");
        passed += 1;
    }
    assert_eq!(passed, 22);
}

#[test]
fn tensors_that_another_thread_drops_slowly_are_waited_for() {
    let rig = equal();
    let patience = Duration::from_secs(2);
    let (send, receive) = channel::<Tensor>();
    let dropper = thread::spawn(move || {
        for tensor in receive {
            thread::sleep(patience / 12);
            drop(tensor);
        }
    });
    let began = Instant::now();
    for tensor in rig.stream(&four().hold_timeout(patience)) {
        let tensor = tensor.unwrap();
        assert!(rig.is_intact(&tensor));
        send.send(tensor).unwrap();
    }
    assert!(began.elapsed() > patience, "too fast to tell");
    drop(send);
    dropper.join().unwrap();
}

#[test]
fn a_slow_consumer_that_does_not_hold_is_waited_for() {
    let rig = equal();
    let mut count = 0;
    for tensor in rig.stream(&four().hold_timeout(Duration::from_millis(30))) {
        let tensor = tensor.unwrap();
        if count % 8 == 0 {
            thread::sleep(Duration::from_millis(120)); // with this one, and the queue is full
        }
        drop(tensor);
        count += 1;
    }
    assert_eq!(count, 24);
}

#[test]
fn a_consumer_that_fills_its_hands_and_lets_go_is_never_refused() {
    let rig = equal();
    let mut stream = rig.stream(&four().hold_timeout(Duration::from_millis(60)));
    let mut count = 0;
    loop {
        let held: Vec<_> = stream.by_ref().take(3).map(|tensor| tensor.unwrap()).collect();
        thread::sleep(Duration::from_millis(90)); // holding, but not asking for more
        assert!(held.iter().all(|tensor| rig.is_intact(tensor)));
        count += held.len();
        if held.is_empty() {
            break;
        }
    }
    assert_eq!(count, 24);
}

#[test]
fn a_slow_source_is_no_consumer_s_fault() {
    let rig = Rig::new(&[TENSOR_BYTES; 8], 0, 4096);
    rig.script(|_, _, _| {
        thread::sleep(Duration::from_millis(60));
        Fault::None
    });
    rig.load_well(&four().hold_timeout(Duration::from_millis(20)));
}

#[test]
fn loading_all_under_a_limit_that_cannot_hold_all_is_refused() {
    let rig = equal();
    let error = four().load_checkpoint(Arc::clone(&rig.checkpoint)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    let text = error.to_string();
    assert!(
        text.contains("(in whole blocks) but the memory limit is 156.25 KiB (160000 bytes)"),
        "{text}"
    );
}

#[test]
fn a_caller_that_may_keep_all_keeps_all_and_nothing_is_overwritten() {
    for order in [Order::Completion, Order::File] {
        for engines in [1, 2] {
            let rig = equal();
            let loader = four().caller_may_retain_all(true).order(order.clone()).engines(engines);
            let loader = loader.hold_timeout(HANG_LIMIT);
            let began = Instant::now();
            let held: Vec<Tensor> = rig.stream(&loader).map(|tensor| tensor.unwrap()).collect();
            assert!(began.elapsed() < HANG_LIMIT, "it waited for what would not come");
            assert_eq!(held.len(), 24);
            assert!(held.iter().all(|tensor| rig.is_intact(tensor)), "overwritten");
        }
    }
}

/// As loops in Python do, this drops the last tensor when it has the next one.
#[test]
fn who_lets_go_only_when_the_next_is_there_gets_along_with_the_smallest_limit() {
    let rig = equal();
    let mut stream =
        rig.stream(&loader().memory_limit(MemoryLimit::Bytes(40_000)).caller_may_retain_all(true));
    let mut last = stream.next().unwrap().unwrap();
    let mut count = 1;
    for next in stream {
        last = next.unwrap();
        assert!(rig.is_intact(&last));
        count += 1;
    }
    assert_eq!(count, 24);
    drop(last);
}

#[test]
fn new_memory_is_taken_only_by_who_keeps_the_old() {
    let rig = equal();
    let mut stream =
        rig.stream(&four().caller_may_retain_all(true).hold_timeout(Duration::from_secs(60)));
    let ring = stream.ring();
    for tensor in stream.by_ref() {
        thread::sleep(Duration::from_millis(5)); // all of the ring is full meanwhile
        let (tensor, ring) = (tensor.unwrap(), ring.upgrade().unwrap());
        let at = tensor.bytes().as_ptr() as usize;
        let (start, len) = ring.region();
        assert!((start..start + len).contains(&at), "memory beside the ring");
    }
}
