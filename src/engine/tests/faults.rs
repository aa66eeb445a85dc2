//! Every answer that the kernel may give to a read, at each read of a load.

use super::{Rig, capped, loader, without_hanging};
use crate::engine::fill::RETRIES_MAX;
use crate::error::ErrorKind;
use crate::load::Loader;
use crate::options::Order;
use crate::source::memory::Fault;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many reads a load without faults makes.
fn attempts(rig: &Rig, loader: &Loader) -> usize {
    rig.script(|_, _, _| Fault::None);
    rig.load_well(loader);
    rig.seen().len()
}

#[test]
fn an_interrupted_read_is_asked_again_wherever_it_happens() {
    let rig = Rig::mixed(4096);
    let total = attempts(&rig, &capped());
    assert!(total > 10, "{total} reads are too few to tell");
    for errno in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        for n in 0..total {
            rig.script(
                move |number, _, _| {
                    if number == n { Fault::Errno(errno) } else { Fault::None }
                },
            );
            let summary = rig.load_well(&capped());
            assert_eq!(summary.retries, [("interrupted", 1)].into(), "errno {errno} at read {n}");
            assert!(summary.downgrades.is_empty());
        }
    }
}

#[test]
fn a_read_interrupted_many_times_in_a_row_succeeds_in_the_end() {
    let rig = Rig::new(&[10_000], 0, 512);
    rig.script(|number, _, _| if number < 16 { Fault::Errno(libc::EAGAIN) } else { Fault::None });
    assert_eq!(rig.load_well(&loader()).retries, [("interrupted", 16)].into());
}

#[test]
fn endless_interruptions_end_in_a_typed_error_in_bounded_time() {
    for errno in [libc::EAGAIN, libc::EINTR] {
        let rig = Rig::mixed(512);
        rig.script(move |_, _, _| Fault::Errno(errno));
        let (error, seen) = without_hanging(move || (rig.load(&capped()).error, rig.seen()));
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("rig.safetensors"), "{error}");
        let of_one_read = |at: u64| seen.iter().filter(|seen| seen.offset == at).count();
        let most = seen.iter().map(|seen| of_one_read(seen.offset)).max();
        assert_eq!(most, Some(1 + RETRIES_MAX as usize), "{seen:?}");
    }
}

#[test]
fn an_io_error_at_any_read_names_the_location_and_hands_out_nothing_half_filled() {
    let rig = Rig::mixed(4096);
    let total = attempts(&rig, &capped());
    for n in 0..total {
        rig.script(
            move |number, _, _| {
                if number == n { Fault::Errno(libc::EIO) } else { Fault::None }
            },
        );
        let outcome = rig.load(&capped()); // which compares every tensor that it hands out
        let error = outcome.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Io, "read {n}");
        assert!(error.to_string().contains("rig.safetensors"), "{error}");
        let cause = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(cause.raw_os_error(), Some(libc::EIO));
        assert!(outcome.tensors < rig.checkpoint.tensors().len());
    }
}

#[test]
fn a_refused_read_is_downgraded_once_wherever_it_happens() {
    let rig = Rig::mixed(4096);
    let total = attempts(&rig, &capped());
    for errno in [libc::EINVAL, libc::EOPNOTSUPP] {
        for n in 0..total {
            rig.script(
                move |number, _, _| {
                    if number == n { Fault::Errno(errno) } else { Fault::None }
                },
            );
            let summary = rig.load_well(&capped());
            assert_eq!(summary.downgrades.len(), 1, "errno {errno} at read {n}");
            let step = &summary.downgrades[0];
            assert_eq!((step.from, step.to), ("direct", "buffered"));
            assert!(summary.retries.is_empty());
            assert!(step.why.contains(&format!("os error {errno}")), "{}", step.why);
        }
    }
}

/// A mount that refuses direct reads refuses all that are in flight, not one. Fails when `fill`
/// takes a step down for each of them: the second has none left.
#[test]
fn reads_refused_together_take_one_step_down_together() {
    for engines in [1, 2] {
        let rig = Rig::mixed(4096);
        let downgraded = Arc::clone(&rig.downgraded);
        rig.script(move |_, _, _| {
            if downgraded.load(Ordering::Relaxed) {
                Fault::None
            } else {
                Fault::Errno(libc::EINVAL)
            }
        });
        let summary = rig.load_well(&loader().engines(engines));
        assert_eq!(summary.downgrades.len(), 1);
        let refused = rig.seen().iter().filter(|seen| seen.fault != Fault::None).count();
        assert!(refused > 1, "only {refused} was in flight");
    }
}

#[test]
fn a_read_refused_on_the_last_rung_ends_the_load() {
    let rig = Rig::mixed(4096);
    rig.script(|_, _, _| Fault::Errno(libc::EINVAL));
    let outcome = without_hanging(move || rig.load(&capped()));
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Io);
    assert_eq!(outcome.summary.downgrades.len(), 1);
}

/// Fails when `fill` takes 0 bytes for an answer like others: it then hangs, or hands out memory
/// that was never written.
#[test]
fn a_source_that_ends_early_at_any_read_is_an_error_never_zeros() {
    let rig = Arc::new(Rig::mixed(4096));
    let total = attempts(&rig, &capped());
    for n in 0..total {
        rig.script(move |number, _, _| if number >= n { Fault::End } else { Fault::None });
        let rig = Arc::clone(&rig);
        let error = without_hanging(move || rig.load(&capped())).error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Changed, "read {n}");
        assert!(error.to_string().contains("rig.safetensors ended at byte"), "{error}");
    }
}

#[test]
fn a_source_that_ends_within_an_extent_is_an_error_never_zeros() {
    let rig = Rig::new(&[100_000, 400_000], 0, 4096);
    for end in [1, 99_999, 262_144, 262_145, 499_999] {
        rig.script(move |_, at, _| match end as u64 {
            end if at >= end => Fault::End,
            end => Fault::Short((end - at) as usize),
        });
        assert_eq!(rig.load(&loader()).error.unwrap().kind(), ErrorKind::Changed, "end at {end}");
    }
}

/// In file order under a limit the other read tasks wait for memory that only the extent of the lost
/// one would free. Fails when the engine joins its read tasks one after the other.
#[test]
fn a_panic_in_a_read_task_ends_the_load_with_an_error_not_a_hang() {
    for order in [Order::Completion, Order::File] {
        for loader in [loader(), capped(), capped().engines(2)] {
            for n in [0, 1, 5] {
                let loader = loader.clone().order(order.clone());
                let rig = Rig::mixed(4096);
                rig.script(move |number, _, _| {
                    assert_ne!(number, n, "planted");
                    Fault::None
                });
                let outcome = without_hanging(move || rig.load(&loader));
                // Without a limit there may be fewer reads than that.
                if let Some(error) = outcome.error {
                    assert!(error.to_string().contains("panicked"), "{error}");
                } else {
                    assert_eq!(n, 5, "the panic went unnoticed");
                }
            }
        }
    }
}
