//! Hedging on a paused clock.

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn late_is_longer_than_the_times_of_the_recent_responses_differ() {
    let hedging = Hedging::default();
    (0..RECENT_MIN - 1).for_each(|_| hedging.record(Duration::from_millis(1)));
    assert_eq!(hedging.late_after(), None);
    hedging.record(Duration::from_millis(1));
    assert_eq!(hedging.late_after(), Some(LATE_MIN));
    // A server that is slower as a whole is soon known as such.
    (0..4).for_each(|_| hedging.record(Duration::from_secs(1)));
    assert_eq!(hedging.late_after(), Some(LATE_MIN));
    (0..RECENT as u64).for_each(|i| hedging.record(Duration::from_millis(100 + i)));
    (0..RECENT as u64).for_each(|i| hedging.record(Duration::from_millis(100 + i)));
    assert_eq!(hedging.late_after(), Some(Duration::from_millis(148 + 3 * 16)));
    // A fifth of them being late does not change what is late.
    (0..12).for_each(|_| hedging.record(Duration::from_secs(2)));
    let late = hedging.late_after().unwrap();
    assert!(late < Duration::from_millis(164 * 3 / 2), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_lags_if_a_new_request_would_be_faster() {
    let hedging = Hedging::default();
    (0..RECENT_MIN).for_each(|_| hedging.record(Duration::from_millis(100)));
    assert_eq!(hedging.usual_pace(), None);
    // 10 MB/s.
    let bodies: Vec<_> = (0..RECENT_MIN).map(|_| hedging.body(2_000_000)).collect();
    for _ in 0..4 {
        tokio::time::advance(50 * MS).await;
        bodies.iter().for_each(|body| body.received(500_000));
    }
    bodies.iter().for_each(ArrivingBody::arrived);
    let pace = hedging.usual_pace().unwrap();
    assert_eq!(pace.period(), Duration::from_millis(200));
    assert!(pace.lags(0, 75 * MS, 1) && !pace.lags(0, 74 * MS, 1));
    let lags = |bytes, left| pace.lags(bytes, Duration::ZERO, left);
    assert!(!lags(2_000_000, 2_000_000) && !lags(500_000, 9_000_000));
    // Nothing came while a new request would have been answered.
    assert!(pace.lags(1_000_000, 100 * MS, 1) && !pace.lags(1_000_000, 99 * MS, 1));
    // At 2 MB/s: 1 MB takes 500 ms there, and 200 ms anew. 100 kB take 50 ms there.
    assert!(lags(400_000, 1_000_000) && !lags(400_000, 100_000));
    assert!(!pace.is_silent(Duration::from_millis(900)));
    assert!(pace.is_silent(Duration::from_secs(1)));
}

#[test]
fn all_bodies_pause_if_many_arrive_and_none_has_arrived() {
    let hedging = Hedging::default();
    (0..RECENT_MIN).for_each(|_| hedging.record(Duration::from_millis(100)));
    (0..RECENT_MIN).for_each(|_| hedging.body(1000).arrived());
    let mut bodies: Vec<_> = (0..=FEW).map(|_| hedging.body(1000)).collect();
    let before = hedging.usual_pace().unwrap();
    assert!(before.is_pause(&hedging.usual_pace().unwrap()));
    bodies.pop();
    assert!(!before.is_pause(&hedging.usual_pace().unwrap()), "few are left");
    bodies.push(hedging.body(1000));
    bodies[0].arrived();
    assert!(!before.is_pause(&hedging.usual_pace().unwrap()), "another one has arrived");
}

#[tokio::test(start_paused = true)]
async fn hedged_requests_are_one_in_twenty() {
    let hedging = Hedging::default();
    let hedged = (0..10_000)
        .filter(|_| {
            hedging.record(MS);
            hedging.try_repeat().is_some()
        })
        .count();
    assert_eq!(hedged, 500 + (BUDGET_FIRST / COST) as usize);
    assert!(hedging.try_repeat().is_none());
    (0..RECENT_MIN).for_each(|_| hedging.body(1000).arrived());
    (0..2 * COST).for_each(|_| hedging.record(MS));
    // Half of their cost comes back where they help: if all of the range has arrived in time.
    let repeats = [hedging.try_repeat().unwrap(), hedging.try_repeat().unwrap()];
    assert!(hedging.try_repeat().is_none());
    tokio::time::advance(LATE_MIN - MS).await;
    repeats.iter().for_each(|repeat| hedging.finished(repeat, 1000, Duration::ZERO));
    let late = hedging.try_repeat().unwrap();
    tokio::time::advance(LATE_MIN).await;
    (0..4).for_each(|_| hedging.finished(&late, 1000, Duration::ZERO));
    assert!(hedging.try_repeat().is_none(), "it was as late as the others");
}

/// A server that sent the last byte of each body 1.5 s after the others got one request in three
/// twice, and a load from it took a minute instead of ten seconds.
#[tokio::test(start_paused = true)]
async fn a_pause_that_every_body_has_is_expected() {
    let hedging = Hedging::default();
    (0..RECENT_MIN).for_each(|_| hedging.record(MS));
    let bodies: Vec<_> = (0..RECENT_MIN).map(|_| hedging.body(1 << 20)).collect();
    bodies.iter().for_each(|body| body.received((1 << 20) - 1));
    tokio::time::advance(1500 * MS).await;
    bodies.iter().for_each(|body| body.received(1));
    bodies.iter().for_each(ArrivingBody::arrived);
    let pace = hedging.usual_pace().unwrap();
    assert!(!pace.lags(0, 1600 * MS, 1) && !pace.is_silent(1600 * MS));
    assert!(pace.lags(0, 2250 * MS, 1) && pace.is_silent(2250 * MS));
}

/// A server that begins to pause in its bodies is known as such when repeated requests do not help.
#[tokio::test(start_paused = true)]
async fn a_pause_is_expected_once_repeated_requests_did_not_end_it() {
    let hedging = Hedging::default();
    (0..RECENT).for_each(|_| hedging.record(MS));
    (0..RECENT).for_each(|_| hedging.body(1000).arrived());
    let silence = Duration::from_secs(1);
    assert!(hedging.usual_pace().unwrap().is_silent(silence));
    let helpful = Vec::from_iter((0..RECENT).map(|_| Repeat::of_silent(silence)));
    helpful.iter().for_each(|repeat| hedging.finished(repeat, 1, Duration::ZERO));
    assert!(hedging.usual_pace().unwrap().is_silent(silence));
    let useless = Vec::from_iter((0..RECENT / 2).map(|_| Repeat::of_silent(silence)));
    tokio::time::advance(1500 * MS).await;
    useless.iter().for_each(|repeat| hedging.finished(repeat, 1, Duration::ZERO));
    let pace = hedging.usual_pace().unwrap();
    assert!(!pace.is_silent(1400 * MS) && pace.is_silent(1500 * MS));
}

/// The rests of repeated ranges, of a few bytes, made the usual rate that of a few bytes.
#[tokio::test(start_paused = true)]
async fn bodies_of_few_bytes_say_nothing_about_rates() {
    let hedging = Hedging::default();
    (0..RECENT_MIN).for_each(|_| hedging.record(MS));
    for len in [1_000_000, 1] {
        for _ in 0..RECENT_MIN {
            let body = hedging.body(len);
            tokio::time::advance(100 * MS).await;
            body.received(len);
            body.arrived();
        }
    }
    assert_eq!(hedging.usual_pace().unwrap().bytes_per_second, Some(10e6));
}
