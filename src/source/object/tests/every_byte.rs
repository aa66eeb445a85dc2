//! A body of 64 KiB that breaks off, at every one of its bytes.
//!
//! That is 65,536 reads and as many resumptions: all of them in the long campaigns; else those at
//! both ends and every 16th between, another 16th each time.

use super::*;
use crate::source::http::ServerOrigin;
use crate::test_files::Random;

const BODY_BYTES: usize = 64 << 10;
const OFFSET: usize = 77;

fn offsets() -> Vec<usize> {
    let is_long = std::env::var_os("RINGLOAD_TEST_LONG").is_some();
    let phase = fastrand::usize(..16);
    let at_ends = |at| !(256..BODY_BYTES - 256).contains(&at);
    (0..BODY_BYTES).filter(|&at| is_long || at % 16 == phase || at_ends(at)).collect()
}

/// Reads the body once for each of its offsets; the first answer breaks off there.
async fn breaks_off_everywhere(end: End) {
    let mut random = Random(7);
    let bytes: Vec<_> = (0..OFFSET + BODY_BYTES + 50).map(|_| random.next() as u8).collect();
    // Every second request is a resumption.
    let offsets = offsets();
    let cuts = offsets.clone();
    // Only waits before retries pass; a jump of the clock is no timeout.
    let mut options = RemoteOptions::with_variables(&[]);
    let (limits, day) = (&mut options.retries, Duration::from_secs(86_400));
    (limits.total, limits.connect, limits.first_byte, limits.stalled) = (day, day, day, day);
    let rig = Rig::open_with(options, bytes.clone(), move |number, request| match number % 2 {
        0 => request.right().cut(cuts[number / 2], end),
        _ => request.right(),
    });
    let rig = rig.await;
    let origin = ServerOrigin::of(&rig.server.url().parse().unwrap());
    let host = rig.object.client.server(&origin);
    for at in &offsets {
        let read = rig.read(OFFSET as u64, BODY_BYTES).await.unwrap();
        assert!(read == bytes[OFFSET..OFFSET + BODY_BYTES], "{end:?} at {at}");
        // What is tested is not how soon a server that fails at every second request is given up.
        (0..5).for_each(|_| host.succeeded());
    }
    assert_eq!(rig.counters.counts().values().sum::<u64>(), offsets.len() as u64);
    let firsts = rig.server.seen().into_iter().skip(1).map(|request| request.range().unwrap().0);
    let resumed = firsts.skip(1).step_by(2);
    assert!(resumed.eq(offsets.iter().map(|at| OFFSET + at)), "a byte was asked for twice");
}

#[tokio::test(start_paused = true)]
async fn reset_at_every_byte() {
    breaks_off_everywhere(End::Reset).await;
}

#[tokio::test(start_paused = true)]
async fn closed_at_every_byte() {
    breaks_off_everywhere(End::Fin).await;
}
