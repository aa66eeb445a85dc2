//! The reader of a body is woken for many bytes at once: its socket has a low-water mark.
//!
//! Hazards of a mark: bytes below it that nobody reads, so that a body waits for ever or is taken
//! for stalled; a body that stalls below it and is taken for alive; the end of a body, which is
//! smaller than the mark; the head of the next response on the same connection; a load that is
//! dropped meanwhile.

use crate::common::fault_server::End;
use crate::common::model::{Model, limits, loader};
use crate::common::{in_time, until};
use crate::no_uring::without_io_uring;
use ringload::RetryLimits;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// The bytes of a tensor, for which the socket gets the highest mark. The rest is no multiple of a
/// mark.
const TENSOR_BYTES: usize = (1 << 20) + 4321;

/// The last bytes of a body, which are fewer than the mark.
const LAST_BYTES: usize = 200 << 10;

/// Runs `test` with io_uring, and without.
fn both(test: fn()) {
    in_time("a load with io_uring", test);
    in_time("a load without io_uring", move || without_io_uring(test));
}

/// A load that is requested in ranges of about 1 MiB, by one connection.
fn model() -> Model {
    Model::new(&[TENSOR_BYTES; 16])
}

/// Limits with which a body is stalled that delivers less than 64 KiB in `period`.
fn stalling_after(period: Duration) -> RetryLimits {
    let mut limits = limits();
    limits.stalled = period;
    limits
}

/// It delivered 100 KiB in each second, of which nothing was read as it was less than the mark.
#[test]
fn a_body_that_becomes_slow_below_the_mark_is_not_stalled() {
    both(|| {
        let model = model();
        let server = model.serve(|number, request| match number {
            0 => {
                let fast = request.right().body_len() - LAST_BYTES;
                request.right().dripping_from(fast, 10 << 10, Duration::from_millis(100))
            }
            _ => request.right(),
        });
        let loader = loader().retry_limits(stalling_after(Duration::from_secs(1))).connections(1);
        let summary = model.load(&loader, &server.url()).unwrap();
        assert!(summary.retries.is_empty(), "{:?}", summary.retries);
    });
}

#[test]
fn a_body_that_stalls_below_the_mark_is_asked_for_again() {
    both(|| {
        let model = model();
        let server = model.serve(|number, request| match number {
            0 => request.right().cut(request.right().body_len() - LAST_BYTES, End::Hang),
            _ => request.right(),
        });
        let loader = loader().retry_limits(stalling_after(Duration::from_secs(1))).connections(1);
        let summary = model.load(&loader, &server.url()).unwrap();
        assert_eq!(summary.retries, [("stalled", 1)].into());
        let seen = server.seen();
        let mut ranges = seen.iter().filter_map(|request| request.range());
        assert!(
            ranges.any(|(first, last)| last - first + 1 == LAST_BYTES),
            "what arrived before the stall is not requested again: {seen:?}"
        );
    });
}

#[test]
fn a_body_that_breaks_off_below_the_mark_loses_nothing() {
    both(|| {
        let model = model();
        for end in [End::Fin, End::Reset] {
            let server = model.serve(move |number, request| match number {
                0 => request.right().cut(request.right().body_len() - 1000, end),
                _ => request.right(),
            });
            let summary = model.load(&loader().connections(1), &server.url()).unwrap();
            assert_eq!(summary.retries.values().sum::<u64>(), 1, "{:?}", summary.retries);
        }
    });
}

/// The head of a response is shorter than any mark. The client waited for more of it.
#[test]
fn a_connection_is_used_again_after_a_body_with_a_mark() {
    both(|| {
        let model = model();
        let server = model.serve(|_, request| request.right());
        let summary = model.load(&loader().connections(1), &server.url()).unwrap();
        assert!(summary.retries.is_empty(), "{:?}", summary.retries);
        let connections: BTreeSet<_> = server.seen().iter().map(|it| it.connection).collect();
        assert!(server.seen().len() > 8 && connections.len() == 1, "{connections:?}");
    });
}

#[test]
fn a_load_is_dropped_while_a_body_waits_for_its_mark() {
    both(|| {
        let model = model();
        let server = model.serve(|_, request| {
            request.right().cut(request.right().body_len().saturating_sub(LAST_BYTES), End::Hang)
        });
        let stream = loader().connections(3).stream(server.url()).unwrap();
        until("the ranges are requested", || server.seen().len() > 3);
        thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        drop(stream);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
}
