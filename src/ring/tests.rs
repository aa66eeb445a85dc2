//! The ring: who may touch which memory, and that breaking the rule is noticed.
//!
//! All of these run under Miri and AddressSanitizer too (`tests/run.sh --full`).

use super::allocator::POISON;
use super::memory::HUGE_PAGE_BYTES;
use super::*;
use proptest::prelude::*;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A slot's place in the ring.
fn place(ring: &Ring, slot: &FullSlot) -> Range<usize> {
    let start = slot.as_ptr() as usize - ring.region().0;
    start..start + slot.len()
}

fn all(slot: &FullSlot) -> &[u8] {
    slot.bytes(0..slot.len())
}

/// A full slot whose every byte is `fill`, of one window.
fn filled(ring: &Arc<Ring>, len: usize, fill: u8) -> Option<FullSlot> {
    filled_near(ring, len, 0, fill)
}

fn filled_near(ring: &Arc<Ring>, len: usize, near: usize, fill: u8) -> Option<FullSlot> {
    let slot = ring.allocate_near(len, near)?;
    let end = slot.len();
    let mut window = slot.into_windows(&[end]).pop()?;
    window.unfilled_mut().fill(fill);
    window.complete()
}

fn free_ranges(ring: &Ring) -> Vec<(usize, usize)> {
    ring.state.lock().free.iter().map(|(&start, &len)| (start, len)).collect()
}

/// The lowest address from `near` on where `len` bytes fit between `live` ranges: what first-fit has to
/// find.
fn first_fit(live: &[Range<usize>], len: usize, capacity: usize, near: usize) -> Option<usize> {
    let mut live: Vec<_> = live.to_vec();
    live.sort_by_key(|range| range.start);
    live.push(capacity..capacity);
    let mut start = 0;
    for range in live {
        let from = start.max(near);
        if range.start.saturating_sub(from) >= len {
            return Some(from);
        }
        start = range.end;
    }
    None
}

#[derive(Debug, Clone)]
enum Step {
    /// Of this length, near this page.
    Allocate(usize, usize),
    /// Drops one of the live slots.
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let most = if cfg!(miri) { 12 } else { 120 };
    let step = prop_oneof![
        (1_usize..6 * PAGE_BYTES, prop_oneof![Just(0), 0_usize..30])
            .prop_map(|(len, near)| Step::Allocate(len, near)),
        any::<usize>().prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 1..most)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn live_slots_never_overlap_and_all_memory_comes_back(steps in steps(), pages in 1_usize..24) {
        let ring = Ring::new(pages * PAGE_BYTES, PAGE_BYTES).unwrap();
        let mut live: Vec<FullSlot> = Vec::new();
        let mut high_water = 0;
        for (number, step) in steps.into_iter().enumerate() {
            let fill = number as u8;
            let places: Vec<_> = live.iter().map(|slot| place(&ring, slot)).collect();
            match step {
                Step::Allocate(len, near) => {
                    let (rounded, near) = (len.next_multiple_of(PAGE_BYTES), near * PAGE_BYTES);
                    let fit = |near| first_fit(&places, rounded, ring.capacity(), near);
                    let expected = fit(near).or_else(|| fit(0));
                    let slot = filled_near(&ring, len, near + 1, fill);
                    let got = slot.as_ref().map(|slot| place(&ring, slot));
                    prop_assert_eq!(&got, &expected.map(|start| start..start + rounded));
                    high_water = high_water.max(got.map_or(0, |range| range.end));
                    live.extend(slot);
                }
                Step::Drop(which) if !live.is_empty() => {
                    let slot = live.swap_remove(which % live.len());
                    let fill = all(&slot)[0];
                    prop_assert!(all(&slot).iter().step_by(97).all(|&byte| byte == fill));
                }
                Step::Drop(_) => {}
            }
            let used: usize = live.iter().map(|slot| all(slot).len()).sum();
            let usage = ring.usage();
            prop_assert_eq!((usage.slots, usage.bytes), (live.len(), used));
            prop_assert!(used <= ring.capacity());
            prop_assert_eq!(ring.state.lock().high_water, high_water);
            let free: usize = free_ranges(&ring).iter().map(|(_, len)| len).sum();
            prop_assert_eq!(free + used, ring.capacity());
        }
        live.clear();
        prop_assert_eq!(free_ranges(&ring), vec![(0, ring.capacity())]);
    }

    #[test]
    fn windows_are_disjoint_and_only_the_last_one_gets_the_full_slot(
        lens in proptest::collection::vec(1_usize..700, 1..8),
        order in any::<u64>(),
    ) {
        let ring = Ring::new(3 * PAGE_BYTES, PAGE_BYTES).unwrap();
        let ends: Vec<usize> = lens
            .iter()
            .scan(0, |end, len| { *end += len; Some(*end) })
            .collect();
        let mut windows: Vec<_> = ring.allocate(2 * PAGE_BYTES).unwrap()
            .into_windows(&ends).into_iter().enumerate().collect();
        prop_assert!(windows.iter().zip(&lens).all(|((_, window), &len)| window.len() == len));
        // All are written while all are alive, and completed in some order.
        for (number, window) in &mut windows {
            window.unfilled_mut().fill(*number as u8 + 1);
        }
        windows.sort_by_key(|(number, _)| (*number as u64 + 1).wrapping_mul(order | 1));
        let mut full = None;
        while let Some((_, window)) = windows.pop() {
            prop_assert!(full.is_none());
            full = window.complete();
        }
        let full = full.unwrap();
        let mut start = 0;
        for (number, &end) in ends.iter().enumerate() {
            prop_assert!(all(&full)[start..end].iter().all(|&byte| byte == number as u8 + 1));
            start = end;
        }
    }
}

#[test]
fn a_dropped_window_makes_no_full_slot_and_returns_the_memory() {
    let ring = Ring::new(4 * PAGE_BYTES, PAGE_BYTES).unwrap();
    for dropped in 0..3 {
        let slot = ring.allocate(3 * PAGE_BYTES).unwrap();
        let windows = slot.into_windows(&[PAGE_BYTES, 2 * PAGE_BYTES, 3 * PAGE_BYTES]);
        for (number, window) in windows.into_iter().enumerate() {
            assert_eq!(ring.usage().slots, 1, "gone while a window is left");
            if number != dropped {
                assert!(window.complete().is_none(), "half-filled memory was handed out");
            }
        }
        assert_eq!(ring.usage().slots, 0);
        assert_eq!(free_ranges(&ring), [(0, 4 * PAGE_BYTES)]);
    }
}

#[test]
fn a_window_s_mark_bounds_what_is_left_to_write() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let mut window = ring.allocate(PAGE_BYTES).unwrap().into_windows(&[100]).pop().unwrap();
    window.unfilled_mut().fill(1);
    window.set_filled(40);
    assert_eq!((window.len(), window.filled(), window.unfilled_len()), (100, 40, 60));
    window.unfilled_mut().fill(2);
    window.set_filled(100);
    assert!(window.unfilled_mut().is_empty());
    let full = window.complete().unwrap();
    assert_eq!((all(&full)[39], all(&full)[40], all(&full)[99]), (1, 2, 2));
}

#[test]
#[should_panic(expected = "claims more bytes")]
fn a_reader_that_claims_too_many_bytes_is_caught() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let mut window = ring.allocate(1).unwrap().into_windows(&[100]).pop().unwrap();
    window.set_filled(101);
}

#[test]
fn windows_that_do_not_ascend_within_their_slot_are_refused() {
    let ring = Ring::new(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
    for ends in [[10, 10], [20, 10], [10, PAGE_BYTES + 1], [0, 10]] {
        let slot = ring.allocate(PAGE_BYTES).unwrap();
        let split = std::panic::AssertUnwindSafe(|| slot.into_windows(&ends));
        assert!(std::panic::catch_unwind(split).is_err(), "{ends:?}");
        assert_eq!(ring.usage().slots, 0, "the slot of {ends:?} is lost");
    }
}

#[test]
fn memory_stays_while_any_clone_of_a_full_slot_lives() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let full = filled(&ring, PAGE_BYTES, 7).unwrap();
    let clone = full.clone();
    drop(full);
    assert!(ring.allocate(1).is_none(), "memory that a clone holds was given away");
    assert!(all(&clone).iter().all(|&byte| byte == 7));
    drop(clone);
    assert!(ring.allocate(1).is_some());
}

#[test]
fn a_full_slot_outlives_every_other_handle_of_the_ring() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let weak = Arc::downgrade(&ring);
    let full = filled(&ring, PAGE_BYTES, 9).unwrap();
    ring.close();
    drop(ring);
    assert!(all(&full).iter().all(|&byte| byte == 9));
    drop(full);
    assert!(weak.upgrade().is_none(), "the ring's memory leaked");
}

#[test]
fn a_closed_ring_gives_memory_back_and_no_more_slots() {
    let ring = Ring::new(4 * PAGE_BYTES, PAGE_BYTES).unwrap();
    let held = filled(&ring, PAGE_BYTES, 5).unwrap();
    drop(filled(&ring, PAGE_BYTES, 6)); // free when the ring is closed, and used before
    ring.close();
    ring.close();
    assert!(ring.allocate(1).is_none());
    let start = ring.region().0;
    let range = |page: usize| page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
    if cfg!(not(miri)) {
        assert!(zero(&ring, range(1)), "free memory was kept at close");
    }
    assert_eq!(all(&held).as_ptr() as usize, start);
    assert!(all(&held).iter().all(|&byte| byte == 5), "held memory was taken");
    drop(held);
    if cfg!(not(miri)) {
        assert!(zero(&ring, range(0)), "memory freed after close was kept");
    }
    assert_eq!(free_ranges(&ring), [(0, 4 * PAGE_BYTES)]);
}

/// Whether `range`, which nobody holds, is as fresh from the kernel.
fn zero(ring: &Ring, range: Range<usize>) -> bool {
    // SAFETY: no slot of the ring is alive in this range, and no other thread has the ring.
    unsafe { ring.memory.bytes(range) }.iter().all(|&byte| byte == 0)
}

/// Writes to a slot through a pointer that was kept beyond its window.
fn write_after_return(ring: &Arc<Ring>, offset: usize) {
    let mut window = ring.allocate(PAGE_BYTES).unwrap().into_windows(&[PAGE_BYTES]).pop().unwrap();
    let stale = window.unfilled_ptr();
    drop(window);
    assert_eq!(ring.usage().slots, 0);
    // SAFETY: the mapping is alive and nobody else looks at it now. What this breaks on purpose is
    // the ring's own rule: the window is gone.
    unsafe { stale.add(offset).write(1) };
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "memory is poisoned in debug builds only")]
#[should_panic(expected = "written to after its slot was returned")]
fn the_alarm_rings_on_a_write_after_return_when_memory_is_reused() {
    let ring = Ring::new(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
    write_after_return(&ring, PAGE_BYTES - 1);
    ring.allocate(1);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "memory is poisoned in debug builds only")]
#[should_panic(expected = "written to after its slot was returned")]
fn the_alarm_rings_on_a_write_after_return_when_the_ring_is_closed() {
    let ring = Ring::new(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
    write_after_return(&ring, 0);
    ring.close();
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "memory is poisoned in debug builds only")]
fn released_memory_is_poisoned_and_fresh_memory_is_not_checked() {
    let ring = Ring::new(4 * PAGE_BYTES, PAGE_BYTES).unwrap();
    drop(filled(&ring, PAGE_BYTES, 1));
    // Reaches beyond the high-water mark: one page poisoned, one never used.
    let mut window = ring.allocate(2 * PAGE_BYTES).unwrap().into_windows(&[2 * PAGE_BYTES]).pop();
    let bytes = window.as_mut().unwrap().unfilled_mut();
    assert_eq!((bytes[0], bytes[PAGE_BYTES - 1]), (POISON, POISON));
    assert_eq!((bytes[PAGE_BYTES], bytes[2 * PAGE_BYTES - 1]), (0, 0));
}

/// Whether the future is done, without waiting.
fn is_ready(future: &mut std::pin::Pin<&mut impl Future>) -> bool {
    matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

#[test]
fn a_slot_freed_between_looking_and_waiting_is_not_missed() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let held = ring.allocate(1).unwrap();
    let mut freed = pin!(ring.freed());
    freed.as_mut().enable();
    assert!(ring.allocate(1).is_none());
    assert!(!is_ready(&mut freed));
    drop(held); // after the look, before the wait
    assert!(is_ready(&mut freed), "the wake-up was missed");
    assert!(ring.allocate(1).is_some());
}

#[test]
fn everyone_who_waits_is_woken_by_a_freed_slot_and_by_every_close() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let events: [&dyn Fn(); 3] = [&|| drop(ring.allocate(1)), &|| ring.close(), &|| ring.close()];
    for (number, event) in events.into_iter().enumerate() {
        let (mut first, mut second) = (pin!(ring.freed()), pin!(ring.freed()));
        first.as_mut().enable();
        second.as_mut().enable();
        event();
        assert!(is_ready(&mut first) && is_ready(&mut second), "event {number}");
    }
}

/// Engines that wait for whatever slot is next would all be woken for a slot that one of them takes.
#[test]
fn one_of_those_who_take_any_slot_is_woken_by_a_freed_slot_and_all_by_a_close() {
    let ring = Ring::new(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
    let held = ring.allocate(2 * PAGE_BYTES).unwrap();
    let mut first = Box::pin(ring.freed_for_one());
    let [mut second, mut third] = [pin!(ring.freed_for_one()), pin!(ring.freed_for_one())];
    first.as_mut().enable();
    second.as_mut().enable();
    third.as_mut().enable();
    drop(held);
    assert!(!is_ready(&mut second) && !is_ready(&mut third));
    drop(first); // it goes away before it looks, so that another one has to
    assert!(is_ready(&mut second) && !is_ready(&mut third));
    let _slot = ring.allocate(1).unwrap();
    ring.wake_another();
    assert!(is_ready(&mut third), "there is room for another slot");
    let mut fourth = pin!(ring.freed_for_one());
    fourth.as_mut().enable();
    let _slot = ring.allocate(1).unwrap();
    ring.wake_another();
    assert!(!is_ready(&mut fourth), "the ring is full");
    ring.close();
    assert!(is_ready(&mut fourth));
}

#[test]
fn slots_from_many_threads_are_exclusive() {
    let ring = Ring::new(8 * PAGE_BYTES, PAGE_BYTES).unwrap();
    let rounds = if cfg!(miri) { 5 } else { 2000 };
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let ring = &ring;
            scope.spawn(move || {
                for round in 0..rounds {
                    let len = 1 + (round * 1031 + usize::from(thread) * 77) % (3 * PAGE_BYTES);
                    if let Some(full) = filled(ring, len, thread) {
                        std::thread::yield_now();
                        assert!(all(&full).iter().step_by(511).all(|&byte| byte == thread));
                    }
                }
            });
        }
    });
    assert_eq!(free_ranges(&ring), [(0, 8 * PAGE_BYTES)]);
}

#[test]
fn populating_ahead_waits_for_growth_and_ends_with_the_ring() {
    const AHEAD: usize = 4 * HUGE_PAGE_BYTES;
    let ring = Ring::new(3 * AHEAD, PAGE_BYTES).unwrap();
    // Where everything asked for is populated, there is something to wait for: no busy loop.
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ring.populate_ahead(AHEAD);
            ended.store(true, Ordering::Release);
        });
        if cfg!(not(miri)) {
            std::thread::sleep(Duration::from_millis(20));
            assert!(!ended.load(Ordering::Acquire), "did not wait for growth");
        }
        ring.close();
    });
    assert!(ended.load(Ordering::Acquire));
}

#[test]
fn slots_of_a_ring_of_large_blocks_are_aligned_to_them() {
    let ring = Ring::new(5 * PAGE_BYTES, 4 * PAGE_BYTES).unwrap();
    assert_eq!(ring.capacity(), 8 * PAGE_BYTES);
    let slots = [ring.allocate(1).unwrap(), ring.allocate(3 * PAGE_BYTES).unwrap()];
    for slot in slots {
        assert_eq!(slot.len(), 4 * PAGE_BYTES);
        let mut windows = slot.into_windows(&[1]);
        assert_eq!(windows[0].unfilled_ptr() as usize % (4 * PAGE_BYTES), 0);
    }
}

#[test]
fn two_slots_come_together_or_not_at_all_and_are_freed_apart() {
    let ring = Ring::new(4 * PAGE_BYTES, PAGE_BYTES).unwrap();
    let [first, second] = ring.allocate_two([100, 2 * PAGE_BYTES]).unwrap();
    assert_eq!((first.len(), second.len(), ring.usage().slots), (PAGE_BYTES, 2 * PAGE_BYTES, 2));
    assert!(ring.allocate_two([1, 1]).is_none());
    assert_eq!(free_ranges(&ring), [(3 * PAGE_BYTES, PAGE_BYTES)], "half of a pair was lost");
    let mut windows = [first, second].map(|slot| {
        let end = slot.len();
        slot.into_windows(&[end]).remove(0)
    });
    for (window, fill) in windows.iter_mut().zip([1, 2]) {
        window.unfilled_mut().fill(fill); // both are written while both are alive
    }
    let [first, second] = windows.map(|window| window.complete().unwrap());
    drop(second);
    assert_eq!((ring.usage().slots, ring.usage().bytes), (1, PAGE_BYTES));
    let again = filled(&ring, 3 * PAGE_BYTES, 3).unwrap();
    assert!(all(&first).iter().all(|&byte| byte == 1), "a slot was given away with the other");
    drop((first, again));
    assert_eq!((ring.usage().slots, ring.usage().bytes), (0, 0));
    assert_eq!(free_ranges(&ring), [(0, 4 * PAGE_BYTES)]);
    ring.close();
    assert!(ring.allocate_two([1, 1]).is_none());
}

/// A part keeps its slot, sees its bytes while others are still written, and takes the right to
/// write them away.
#[test]
fn shared_bytes_are_read_while_others_are_written() {
    let ring = Ring::new(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
    let slot = ring.allocate(2 * PAGE_BYTES).unwrap();
    let mut windows = slot.into_windows(&[PAGE_BYTES, 2 * PAGE_BYTES]);
    let (mut second, mut first) = (windows.pop().unwrap(), windows.pop().unwrap());
    first.narrow(100);
    assert_eq!(first.unfilled_len(), 100);
    first.unfilled_mut().fill(1);
    first.set_filled(100);
    assert_eq!(first.unfilled_len(), 0, "it was narrowed");
    first.widen();
    let part = first.share().unwrap();
    assert_eq!((first.len(), first.filled()), (PAGE_BYTES - 100, 0));
    first.unfilled_mut().fill(2);
    assert!(first.shared_bytes(&part) == [1; 100], "they were written to");
    second.unfilled_mut().fill(3);
    assert!(first.complete().is_none());
    let full = second.complete().unwrap();
    assert_eq!((all(&full)[99], all(&full)[100], all(&full)[PAGE_BYTES]), (1, 2, 3));
    drop(full);
    assert_eq!(ring.usage().slots, 1, "the part keeps it");
    assert_eq!(*part.slice(10..20).borrow().unwrap(), [1; 10]);
    drop(part);
    assert_eq!(ring.usage().slots, 0);
    let mut lent = [0; 8];
    // SAFETY: nobody else touches `lent` while the window lives.
    #[allow(unsafe_code)]
    let mut window = unsafe { Window::lend(std::ptr::NonNull::from(&mut lent[..])) };
    assert!(window.share().is_none(), "its lender has it");
}

/// A full slot of `len` bytes, each 1, and a part of all of them.
fn full_and_part(len: usize) -> (FullSlot, Part) {
    let ring = Ring::new(len, PAGE_BYTES).unwrap();
    let mut window = ring.allocate(len).unwrap().into_windows(&[len]).pop().unwrap();
    window.unfilled_mut().fill(1);
    window.set_filled(len);
    let part = window.share().unwrap();
    (window.complete().unwrap(), part)
}

/// What foreign code does to the bytes from `start` on, in words as `copy_lent` reads them: so Miri
/// finds any slice that is still in use, and no race with copies.
fn write_as_foreign_code(start: std::ptr::NonNull<u8>, len: usize, byte: u8) {
    for at in (0..len).step_by(8) {
        // SAFETY: within a slot that was lent, whose bytes are only read by atomic loads.
        #[allow(unsafe_code)]
        let word = unsafe { AtomicU64::from_ptr(start.add(at).cast().as_ptr()) };
        word.store(u64::from_ne_bytes([byte; 8]), Ordering::Relaxed);
    }
}

/// The cache's writer borrows a part while a consumer takes the slot and writes to it.
#[test]
fn borrowed_bytes_do_not_change_until_they_are_returned() {
    const LEN: usize = PAGE_BYTES;
    for round in 0..if cfg!(miri) { 8 } else { 400 } {
        let (full, part) = full_and_part(LEN);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                for _ in 0..round % 40 {
                    std::thread::yield_now(); // from before the borrow to after it
                }
                write_as_foreign_code(full.lend(), LEN, 2);
            });
            let mut copy = vec![0; LEN];
            match part.borrow() {
                Some(borrowed) => {
                    std::thread::yield_now();
                    assert!(borrowed.iter().all(|&byte| byte == 1), "lent while it was borrowed");
                }
                None => part.copy_to(&mut copy),
            }
            consumer.join().unwrap();
            assert!(part.borrow().is_none(), "borrowed although it is lent");
            part.copy_to(&mut copy);
            assert!(copy == [2; LEN]);
        });
    }
}

#[test]
fn lending_waits_for_every_borrow_of_the_ring_and_later_lendings_do_not() {
    let (full, part) = full_and_part(2 * PAGE_BYTES);
    let (first, second) = (part.slice(0..PAGE_BYTES), part.slice(PAGE_BYTES..2 * PAGE_BYTES));
    let borrows = (first.borrow().unwrap(), second.borrow().unwrap());
    let lent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            full.lend();
            lent.store(true, Ordering::Release);
        });
        let pause = || std::thread::sleep(Duration::from_millis(10));
        pause();
        drop(borrows.0);
        pause();
        assert!(!lent.load(Ordering::Acquire) && !full.is_lent(), "did not wait for both");
        drop(borrows.1);
    });
    assert!(full.is_lent());
    full.lend();
}

#[test]
fn copies_of_any_length_and_place_are_exact() {
    let ring = Ring::new(PAGE_BYTES, PAGE_BYTES).unwrap();
    let mut window = ring.allocate(100).unwrap().into_windows(&[100]).pop().unwrap();
    window.unfilled_mut().iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
    window.set_filled(100);
    let part = window.share().unwrap();
    for (start, len) in [(0, 0), (0, 8), (1, 3), (3, 5), (7, 1), (5, 30), (8, 17), (1, 99)] {
        let mut copy = vec![0; len];
        part.slice(start..start + len).copy_to(&mut copy);
        assert!(copy.iter().zip(start as u8..).all(|(&byte, at)| byte == at), "{len} from {start}");
    }
}
