//! The limit on a paused clock.

use super::*;

/// Ends a window in which every permit was taken and each connection received `rate` bytes a
/// second. Returns the limit.
fn window(limit: &ConcurrencyLimit, rate: f64) -> usize {
    let mut state = limit.state.lock();
    let now = Instant::now();
    state.measured = true;
    let total = rate * state.limit as f64;
    state.adapt([rate, total], true, now);
    state.limit
}

#[tokio::test(start_paused = true)]
async fn the_limit_starts_by_the_time_to_the_first_byte() {
    let limit = ConcurrencyLimit::new(None);
    assert_eq!(limit.limit(), START);
    let started = |ms| {
        let limit = ConcurrencyLimit::new(None);
        limit.answered(Duration::from_millis(ms));
        limit.limit()
    };
    assert_eq!([1, 5, 60, 100, 1000].map(started), [4, 4, 46, 77, 128]);
    let given = ConcurrencyLimit::new(Some(3));
    given.answered(Duration::from_millis(100));
    assert_eq!(given.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_while_connections_do_not_take_from_each_other() {
    let limit = ConcurrencyLimit::new(None);
    limit.answered(Duration::from_millis(100));
    assert_eq!(window(&limit, 10e6), 154);
    assert_eq!(window(&limit, 1e6), 154, "the new connections have not answered yet");
    tokio::time::advance(Duration::from_millis(125)).await;
    assert_eq!(window(&limit, 8e6), 231, "some room");
    let suffices = limit.state.lock().sufficient();
    assert!((suffices - 182.0).abs() < 2.0, "{suffices}");
    tokio::time::advance(Duration::from_millis(125)).await;
    assert_eq!([4e6, 4e6, 4e6].map(|rate| window(&limit, rate)), [231; 3], "the network is full");
    assert_eq!(window(&limit, 10e6), 462, "there is room again");
    tokio::time::advance(Duration::from_millis(125)).await;
    assert_eq!(window(&limit, 10e6), CONNECTIONS_MAX);
    tokio::time::advance(Duration::from_millis(125)).await;
    assert_eq!(window(&limit, 10e6), CONNECTIONS_MAX);
    assert_eq!([3e6; 3].map(|rate| window(&limit, rate)), [CONNECTIONS_MAX; 3]);
    assert_eq!(window(&limit, 3e6), 384, "crowded for four windows");
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_one_connection_is_measured_by_the_time_for_which_it_sends() {
    let limit = ConcurrencyLimit::new(None);
    limit.answered(Duration::from_millis(100));
    let bodies: Vec<_> = (0..10).map(|_| limit.arriving()).collect();
    tokio::time::advance(Duration::from_millis(25)).await;
    for body in &bodies {
        assert_eq!(body.received(250_000), None);
    }
    drop(bodies);
    tokio::time::advance(Duration::from_millis(25)).await;
    assert_eq!(limit.arriving().received(0), None, "not all permits are taken");
    let best = limit.state.lock().best;
    assert!((best - 10e6).abs() < 1.0, "the pause does not count: {best}");
    let permits = Vec::from_iter((0..77).map(|_| limit.try_acquire()));
    assert!(permits.iter().all(|&permit| permit));
    let bodies: Vec<_> = (0..77).map(|_| limit.arriving()).collect();
    tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
    for body in &bodies[1..] {
        assert_eq!(body.received(500_000), None);
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(bodies[0].received(500_000), Some(154));
    let best = limit.state.lock().best;
    assert!((best - 10e6).abs() < 1e5, "{best}");
}

/// Bodies that took less than a window, with pauses between them, were never measured: a load of
/// fast answers kept the number of connections that it started with.
#[tokio::test(start_paused = true)]
async fn bodies_that_are_shorter_than_a_window_are_measured() {
    let limit = ConcurrencyLimit::new(None);
    limit.answered(Duration::from_millis(5));
    let mut grown = Vec::new();
    for _ in 0..12 {
        let permits: Vec<_> = (0..4).map(|_| limit.try_acquire()).collect();
        assert_eq!(permits, [true; 4]);
        let bodies: Vec<_> = (0..4).map(|_| limit.arriving()).collect();
        tokio::time::advance(Duration::from_millis(42)).await;
        grown.extend(bodies.iter().filter_map(|body| body.received(2 << 20)));
        drop(bodies);
        (0..4).for_each(|_| limit.release());
        tokio::time::advance(Duration::from_millis(5)).await;
    }
    assert_eq!(grown, [6], "only four permits were taken afterwards");
}

#[tokio::test(start_paused = true)]
async fn ranges_are_as_long_as_latency_rate_memory_and_the_rest_of_the_load_say() {
    const MIB: u64 = 1 << 20;
    let limit = ConcurrencyLimit::new(None);
    let range = |memory: u64, left: u64| limit.range_bytes(memory * MIB, left * MIB);
    assert_eq!(range(256, 4096), RANGE_BYTES);
    limit.answered(Duration::from_millis(100));
    {
        let mut state = limit.state.lock();
        (state.best, state.sending, state.limit) = (10e6, 120.0, 240);
    }
    assert_eq!(range(1 << 20, 4096), 2 * MIB, "200 ms of 10 MB/s");
    assert_eq!(range(256, 4096), 5 * MIB / 4, "120 of them take half of the memory");
    assert_eq!(range(64, 4096), MIB / 2);
    assert_eq!(range(1 << 20, 240), MIB, "the rest is shared by all connections");
    assert_eq!(range(1 << 20, 1), MIB / 4);
    limit.throttled();
    assert_eq!(range(1 << 20, 4096), 4 * MIB);
}

#[tokio::test]
async fn a_given_limit_stays() {
    let limit = ConcurrencyLimit::new(Some(3));
    assert_eq!([1e9, 2e9, 4e9].map(|rate| window(&limit, rate)), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_throttling_server_gets_half_as_many_once_a_second() {
    let limit = ConcurrencyLimit::new(None);
    limit.throttled();
    limit.throttled();
    assert_eq!(limit.limit(), 8);
    tokio::time::advance(THROTTLE_PERIOD).await;
    limit.throttled();
    assert_eq!(limit.limit(), 4);
    assert_eq!(window(&limit, 1e9), 4, "within a second of the throttling");
    tokio::time::advance(THROTTLE_PERIOD).await;
    assert_eq!([1e9, 1e9].map(|rate| window(&limit, rate)), [5, 6]);
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
                let _permit = limit.acquire().await;
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
