//! The limit on a paused clock.

use super::adaptive::{RANGE_BYTES, START};
use super::window::{Measured, WINDOW};
use super::*;
use crate::source::CONNECTIONS_MAX;

const MS: Duration = Duration::from_millis(1);

/// Ends a window in which every permit was taken and each connection received `rate` bytes a
/// second. Returns the limit.
fn window(limit: &ConcurrencyLimit, rate: f64) -> usize {
    let mut state = limit.state.lock();
    let total = rate * state.adaptive.limit() as f64;
    state.adaptive.adapt(Measured { rate, total }, true, Instant::now());
    state.adaptive.limit()
}

/// A limit for a store that answers after `latency`.
fn limit_at(latency: Duration) -> Arc<ConcurrencyLimit> {
    let limit = ConcurrencyLimit::new(None);
    limit.answered(latency);
    limit
}

#[tokio::test(start_paused = true)]
async fn the_limit_starts_by_the_time_to_the_first_byte() {
    assert_eq!(ConcurrencyLimit::new(None).limit(), START);
    assert_eq!([1, 5, 60, 100, 1000].map(|ms| limit_at(ms * MS).limit()), [4, 4, 46, 77, 128]);
    let given = ConcurrencyLimit::new(Some(3));
    given.answered(100 * MS);
    assert_eq!(given.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_while_connections_do_not_take_from_each_other() {
    let limit = limit_at(100 * MS);
    assert_eq!(window(&limit, 10e6), 231, "three times as many, once a rate is known");
    assert_eq!(window(&limit, 1e6), 231, "the new connections have not answered yet");
    tokio::time::advance(125 * MS).await;
    assert_eq!(window(&limit, 8e6), 231, "a single window");
    assert_eq!(window(&limit, 8e6), 347, "some room");
    tokio::time::advance(125 * MS).await;
    assert_eq!([4e6; 5].map(|rate| window(&limit, rate)), [347; 5], "the network is full");
    assert_eq!(
        [10e6; 3].map(|rate| window(&limit, rate)),
        [347, 347, CONNECTIONS_MAX],
        "room again"
    );
    tokio::time::advance(125 * MS).await;
    assert_eq!([10e6; 4].map(|rate| window(&limit, rate)), [CONNECTIONS_MAX; 4]);
    assert_eq!([3e6; 2].map(|rate| window(&limit, rate)), [CONNECTIONS_MAX; 2]);
    assert_eq!(window(&limit, 3e6), 384, "most windows are crowded");
}

/// A store whose connections are fast needs few of them.
#[tokio::test(start_paused = true)]
async fn the_limit_becomes_the_number_that_a_fast_network_needs() {
    let limit = limit_at(60 * MS);
    let needed = 1.6e9 / 50e6 * (0.06 + RANGE_BYTES as f64 / 50e6) / (RANGE_BYTES as f64 / 50e6);
    assert_eq!(window(&limit, 50e6), needed as usize);
    let near = limit_at(5 * MS);
    assert_eq!(window(&near, 50e6), 4, "their rate may be high because there are few");
}

/// A client that had no processor for 300 ms received what had come meanwhile within a moment. The
/// rate of that moment was taken for the network's, and 512 connections were opened.
#[tokio::test(start_paused = true)]
async fn a_single_window_at_an_impossible_rate_changes_nothing() {
    let limit = limit_at(100 * MS);
    assert_eq!(window(&limit, 10e6), 231);
    tokio::time::advance(125 * MS).await;
    assert_eq!([4e6, 4e6, 160e6, 4e6].map(|rate| window(&limit, rate)), [231; 4]);
    assert_eq!(limit.state.lock().adaptive.best().round(), (10e6 * 0.998_f64.powi(3)).round());
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_one_connection_is_measured_by_the_time_for_which_it_sends() {
    let limit = limit_at(100 * MS);
    let bodies: Vec<_> = (0..10).map(|_| limit.arriving()).collect();
    tokio::time::advance(25 * MS).await;
    for body in &bodies {
        assert_eq!(body.received(250_000), None);
    }
    drop(bodies);
    tokio::time::advance(25 * MS).await;
    assert_eq!(limit.arriving().received(0), None, "not all permits are taken");
    let best = limit.state.lock().adaptive.best();
    assert!((best - 10e6).abs() < 1.0, "the pause does not count: {best}");
    let permits = Vec::from_iter((0..77).map(|_| limit.try_acquire()));
    assert!(permits.iter().all(|&permit| permit));
    let bodies: Vec<_> = (0..77).map(|_| limit.arriving()).collect();
    let mut grown = Vec::new();
    for _ in 0..2 {
        tokio::time::advance(WINDOW - MS).await;
        grown.extend(bodies.iter().filter_map(|body| body.received(500_000)));
        tokio::time::advance(MS).await;
        grown.extend(bodies[0].received(0));
    }
    assert_eq!(grown, [154], "all permits are taken");
    let best = limit.state.lock().adaptive.best();
    assert!((best - 10e6).abs() < 1e5, "{best}");
}

/// Receives bodies over all connections, of `pieces` pieces each of 1 MB in 10 ms, with a pause before
/// the piece `at`. Returns the limit.
async fn receive(limit: &Arc<ConcurrencyLimit>, pieces: u32, pause: Duration, at: u32) -> usize {
    let connections = limit.limit();
    assert!((0..connections).all(|_| limit.try_acquire()));
    let bodies: Vec<_> = (0..connections).map(|_| limit.arriving()).collect();
    for piece in 0..pieces {
        tokio::time::advance(10 * MS + if piece == at { pause } else { Duration::ZERO }).await;
        for body in &bodies {
            body.received(1_000_000);
        }
    }
    bodies.iter().for_each(|body| _ = body.arrived());
    drop(bodies);
    (0..connections).for_each(|_| limit.release());
    limit.limit()
}

/// A server that sent the last byte of each answer 1.5 s late was read over 4 connections, 256 KiB at
/// a time: the pause was taken for a low rate.
#[tokio::test(start_paused = true)]
async fn a_pause_in_every_body_is_latency_wherever_it_is() {
    const MIB: u64 = 1 << 20;
    for at in [0, 10, 19] {
        let limit = limit_at(MS);
        let pause = 1500 * MS;
        assert_eq!(limit.limit(), 4);
        assert_eq!(receive(&limit, 20, pause, at).await, 128, "as if all had answered late");
        for _ in 0..3 {
            receive(&limit, 20, pause, at).await;
        }
        assert!(limit.limit() >= 300, "{at}: {}", limit.limit());
        let best = limit.state.lock().adaptive.best();
        assert!((90e6..140e6).contains(&best), "{at}: {best}");
        assert_eq!(limit.range_bytes(8192 * MIB, 8192 * MIB), 8 * MIB, "{at}");
        assert_eq!(limit.range_bytes(256 * MIB, 8192 * MIB), MIB / 2, "one on each of 512");
    }
}

/// A window of many slow bodies says how slow they are, and not that they pause.
#[tokio::test(start_paused = true)]
async fn pauses_of_a_few_bodies_are_a_low_rate() {
    let limit = limit_at(MS);
    for _ in 0..4 {
        receive(&limit, 20, Duration::ZERO, 0).await;
    }
    let best = limit.state.lock().adaptive.best();
    receive(&limit, 20, 1500 * MS, 1).await;
    let state = limit.state.lock();
    assert_eq!(
        (state.adaptive.usual_pause(), state.adaptive.best() > best / 2.0),
        (Duration::ZERO, true)
    );
}

/// Bodies that took less than a window, with pauses between them, were never measured: a load of
/// fast answers kept the number of connections that it started with.
#[tokio::test(start_paused = true)]
async fn bodies_that_are_shorter_than_a_window_are_measured() {
    let limit = limit_at(5 * MS);
    let mut grown = Vec::new();
    for _ in 0..12 {
        let permits: Vec<_> = (0..4).map(|_| limit.try_acquire()).collect();
        assert_eq!(permits, [true; 4]);
        let bodies: Vec<_> = (0..4).map(|_| limit.arriving()).collect();
        tokio::time::advance(42 * MS).await;
        grown.extend(bodies.iter().filter_map(|body| body.received(2 << 20)));
        drop(bodies);
        (0..4).for_each(|_| limit.release());
        tokio::time::advance(4 * MS).await;
    }
    assert_eq!(grown, [6], "only four permits were taken afterwards");
}

#[tokio::test(start_paused = true)]
async fn ranges_are_as_long_as_latency_rate_memory_and_the_rest_of_the_load_say() {
    const MIB: u64 = 1 << 20;
    let limit = limit_at(100 * MS);
    let range = |memory: u64, left: u64| limit.range_bytes(memory * MIB, left * MIB);
    assert_eq!(range(256, 4096), RANGE_BYTES);
    assert_eq!(window(&limit, 10e6), 231);
    assert_eq!(range(1 << 20, 4096), 2 * MIB, "200 ms of 10 MB/s");
    assert_eq!(range(256, 4096), MIB, "160 of them take half of the memory");
    assert_eq!(range(64, 4096), MIB / 4);
    assert_eq!(range(1 << 20, 231), MIB, "the rest is shared by all connections");
    assert_eq!(range(1 << 20, 1), MIB / 4);
}

/// Ranges of a server on the same machine were as long as the memory allowed: 8 MiB on each of 16
/// connections, all of which left the cache of the processor before they were used.
#[tokio::test(start_paused = true)]
async fn ranges_of_nearby_stores_are_short_enough_for_the_cache_of_the_processor() {
    const MIB: u64 = 1 << 20;
    for (connections, latency, mib, encrypted_mib) in [
        (4, MS / 10, 4, 8),
        (16, MS / 10, 1, 4),
        (64, MS / 10, 1, 1),
        (16, 8 * MS, 2, 4),
        (16, 60 * MS, 4, 4),
    ] {
        let limit = ConcurrencyLimit::new(Some(connections));
        limit.answered(latency);
        window(&limit, 250e6);
        limit.answered(100 * MS); // by a client whose processor was busy
        let (range, of) = (|| limit.range_bytes(128 * MIB, 4096 * MIB), (connections, latency));
        assert_eq!(range(), mib * MIB, "{of:?}");
        limit.encrypt(); // requests cost more then
        assert_eq!(range(), encrypted_mib * MIB, "{of:?}");
    }
}

#[tokio::test]
async fn a_given_limit_stays() {
    let limit = ConcurrencyLimit::new(Some(3));
    assert_eq!([1e9, 2e9, 4e9].map(|rate| window(&limit, rate)), [3, 3, 3]);
}

/// A store that accepts some hundred requests a second delivers as much by longer ranges.
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_fewer_requests_gets_fewer_and_longer_ones_at_once() {
    const MIB: u64 = 1 << 20;
    let limit = limit_at(100 * MS);
    for _ in 0..77 {
        drop(limit.acquire(false).await);
    }
    tokio::time::advance(250 * MS).await;
    assert_eq!(window(&limit, 20e6), 156);
    assert_eq!(limit.range_bytes(256 * MIB, 4096 * MIB), 7 * MIB / 4);
    limit.throttled(0);
    let began = Instant::now();
    for _ in 0..31 {
        drop(limit.acquire(false).await);
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((0.17..=0.2).contains(&seconds), "{seconds}: 30 at half of 308 a second, which grows");
    let longer = limit.range_bytes(256 * MIB, 4096 * MIB);
    assert_eq!(longer, 19 * MIB / 4, "sqrt(0.8 * 256 MiB * 20e6 / 176)");
    assert_eq!(limit.range_bytes(256 * MIB, MIB), longer, "not shortened at the end");
}

/// A refused range may hold memory that others wait for, so it does not go to the end of the queue.
#[tokio::test(start_paused = true)]
async fn a_repeated_request_goes_before_those_that_wait_for_their_turn() {
    let limit = ConcurrencyLimit::new(Some(100));
    drop(limit.acquire(false).await);
    limit.throttled(0);
    let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for number in 0..10 {
        let (limit, done) = (Arc::clone(&limit), done.clone());
        tasks.push(tokio::spawn(async move {
            drop(limit.acquire(number == 9).await);
            done.send(number).unwrap();
        }));
        tokio::task::yield_now().await;
    }
    let mut place = 0;
    while order.recv().await.is_some_and(|number| number != 9) {
        place += 1;
    }
    assert!(place <= 2, "{place} went before it");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn no_permit_is_granted_beyond_the_limit_and_all_in_the_end() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let limit = ConcurrencyLimit::new(Some(2));
    let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (limit, active, most) = (limit.clone(), active.clone(), most.clone());
            tokio::spawn(async move {
                let _permit = limit.acquire(false).await;
                most.fetch_max(active.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                active.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(most.load(Ordering::Relaxed), 2);
}
