//! Objects of a server that misbehaves, on a paused clock: what waits does so in no time.

mod every_byte;
mod verified;

use super::body_writer::BodyWriter;
use super::receive::NoSocketReader;
use super::remote_object::{Object, ReadContext};
use crate::error::{ErrorKind, Result};
use crate::fault_server::{End, FaultServer, Reply, Request};
use crate::location::Location;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::source::purpose::Purpose;
use crate::source::store::Stores;
use crate::source::{LoadCounters, Stop};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// A client of this runtime alone.
struct Rig {
    server: FaultServer,
    object: Object,
    counters: LoadCounters,
}

impl Rig {
    /// The object `bytes` of a server that answers ranges as `script` says, from number 0 on. The
    /// opening is answered right.
    async fn open(
        bytes: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        tokio::spawn(pace());
        Self::open_with(RemoteOptions::with_variables(&[]), bytes, script).await
    }

    /// As [`open`](Self::open), with these options, and on a clock that jumps at any time.
    async fn open_with(
        options: RemoteOptions,
        bytes: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let server = FaultServer::spawn(bytes, move |number, request| {
            number.checked_sub(1).map_or_else(|| request.right(), |number| script(number, request))
        });
        Self::of(options, server).await
    }

    /// The object of this server.
    async fn of(options: RemoteOptions, server: FaultServer) -> Self {
        let Location::Object(uri) = Location::parse(&server.url()).unwrap() else {
            panic!("no object")
        };
        let client = Client::new(options);
        let store = Stores::default().of(&client, &uri).unwrap();
        let (object, _) =
            Object::open(client, store, uri, 100, None, Purpose::Header).await.unwrap();
        Self { server, object, counters: LoadCounters::default() }
    }

    /// Reads `len` bytes from `offset`.
    async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let Self { counters, .. } = self;
        let stop = &Stop::default();
        let context = ReadContext { sockets: &NoSocketReader, counters, stop };
        let writer = BodyWriter::in_memory(len)?;
        let (outcome, writer) = self.object.read(&context, offset, writer, None).await;
        outcome.map(|()| writer.into_bytes())
    }

    /// Takes the whole budget of repeated requests.
    fn use_up_budget(&self) {
        let server = self.object.server().unwrap();
        while server.hedging.try_repeat().is_some() {}
    }
}

/// Lets a second of the paused clock take at least 30 ms. The clock jumps to the next timer when all
/// tasks wait, also when they wait for a connection or for bytes that the kernel of a busy machine
/// has not delivered yet. It does not jump while a blocking task runs.
async fn pace() {
    loop {
        let pause = || std::thread::sleep(Duration::from_millis(30));
        tokio::task::spawn_blocking(pause).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_byte_after_a_minute_is_asked_for_elsewhere() {
    let minute = Duration::from_secs(60);
    let bytes: Vec<_> = (0..=255).cycle().take(70_000).collect();
    let rig = Rig::open(bytes.clone(), move |number, request| match number {
        0 => request.right().after(minute),
        _ => request.right(),
    });
    let rig = rig.await;
    let began = Instant::now();
    assert!(rig.read(5, 60_000).await.unwrap() == bytes[5..60_005]);
    let limits = rig.object.client.options.retries;
    assert!((limits.first_byte..minute).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(rig.counters.counts(), [("timeout", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_always_takes_a_minute_is_given_up_in_time() {
    let minute = Duration::from_secs(60);
    let rig = Rig::open(vec![1; 1000], move |_, request| request.right().after(minute)).await;
    let began = Instant::now();
    let error = rig.read(0, 1000).await.unwrap_err();
    let limits = rig.object.client.options.retries;
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("did not answer in 20 s"), "{error}");
    assert!(began.elapsed() < limits.total + limits.first_byte, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_is_stalled_and_in_the_end_given_up() {
    let second = Duration::from_secs(1);
    let rig =
        Rig::open(vec![1; 100_000], move |_, request| request.right().dripping(1, second)).await;
    let began = Instant::now();
    let error = rig.read(0, 100_000).await.unwrap_err();
    let limits = rig.object.client.options.retries;
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let most = limits.total + limits.first_byte + limits.stalled;
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    assert!(rig.server.seen().len() <= 2 + limits.attempts as usize);
}

/// A body that moves may take longer than a stall, and than an attempt would without one.
#[tokio::test(start_paused = true)]
async fn a_slow_body_that_moves_is_left_to_come() {
    let bytes: Vec<_> = (0..=255).cycle().take(1 << 20).collect();
    let rig = Rig::open(bytes.clone(), |_, request| {
        request.right().dripping(16 << 10, Duration::from_millis(1500))
    });
    let rig = rig.await;
    let began = Instant::now();
    assert!(rig.read(0, 1 << 20).await.unwrap() == bytes);
    assert!(began.elapsed() > Duration::from_secs(90), "{:?}", began.elapsed());
    assert_eq!(rig.counters.counts(), [].into());
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_again_when_it_wants_to_be_and_not_later() {
    for status in [429, 500, 503] {
        let rig = Rig::open(vec![1; 1000], move |number, request| match number {
            0 => Reply::new(status).with("Retry-After", "7"),
            _ => request.right(),
        });
        let rig = rig.await;
        let began = Instant::now();
        rig.read(0, 1000).await.unwrap();
        let seven = Duration::from_secs(7);
        let within = seven..2 * seven;
        assert!(within.contains(&began.elapsed()), "{status}: {:?}", began.elapsed());
    }
}

/// A late response was waited for to its end when the budget of repeated requests was too small at
/// the moment in which it became late.
#[tokio::test(start_paused = true)]
async fn a_late_response_is_hedged_as_soon_as_the_budget_permits() {
    const QUICK: usize = 16; // enough to know what is late
    let rig = Rig::open(vec![1; 1000], move |number, request| match number {
        QUICK => request.right().after(Duration::from_secs(15)),
        _ => request.right(),
    });
    let rig = rig.await;
    for _ in 0..QUICK {
        rig.read(0, 1000).await.unwrap();
    }
    rig.use_up_budget();
    let began = Instant::now();
    let late = async { rig.read(0, 1000).await.map(|_| began.elapsed()) };
    let others = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        for _ in 0..QUICK {
            rig.read(0, 1000).await.unwrap();
        }
    };
    let (took, ()) = tokio::join!(late, others);
    assert!(took.unwrap() < Duration::from_secs(15));
    assert!(rig.counters.counts().into_keys().eq(["hedged"]), "{:?}", rig.counters.counts());
}

/// The second request was waited for however late it was.
#[tokio::test(start_paused = true)]
async fn a_repeated_request_that_is_late_too_is_repeated() {
    const QUICK: usize = 40; // enough for the budget of two
    let rig = Rig::open(vec![1; 1000], move |number, request| match number {
        QUICK | 41 => request.right().after(Duration::from_secs(15)),
        _ => request.right(),
    });
    let rig = rig.await;
    for _ in 0..QUICK {
        rig.read(0, 1000).await.unwrap();
    }
    let began = Instant::now();
    rig.read(0, 1000).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(rig.counters.counts(), [("hedged", 2)].into());
}

/// Of a body that had stopped, the rest was requested after 10 s, however fast others were.
#[tokio::test(start_paused = true)]
async fn a_body_that_lags_behind_others_is_requested_elsewhere_from_where_it_stopped() {
    // With a budget for it, and without one: soon, and after a second.
    for (quick, most) in [(30, Duration::from_millis(900)), (16, Duration::from_secs(3))] {
        let bytes: Vec<_> = (0..=255).cycle().take(100_000).collect();
        let rig = Rig::open(bytes.clone(), move |number, request| match number {
            it if it == quick => request.right().cut(70_000, End::Hang),
            _ => request.right(),
        });
        let rig = rig.await;
        for _ in 0..quick {
            rig.read(0, 100_000).await.unwrap();
        }
        if quick < 20 {
            rig.use_up_budget();
        }
        let began = Instant::now();
        assert!(rig.read(0, 100_000).await.unwrap() == bytes);
        assert!(began.elapsed() < most, "{:?}", began.elapsed());
        assert_eq!(rig.counters.counts(), [("slow", 1)].into());
        let seen = rig.server.seen();
        let [stopped, rest] = &seen[seen.len() - 2..] else { panic!() };
        assert_eq!(rest.range(), Some((70_000, 99_999)));
        assert_ne!(rest.connection, stopped.connection);
    }
}

/// The rest of a body that had stopped was requested after two periods of comparison, at 100 ms to the
/// first byte after 200 to 400 ms, and its extent held memory for as long.
#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_requested_again_when_a_new_request_would_have_been_answered() {
    let first_byte = Duration::from_secs(1);
    let rig = Rig::open(vec![1; 100_000], move |number, request| match number {
        30 => request.right().after(first_byte).cut(70_000, End::Hang),
        _ => request.right().after(first_byte),
    });
    let rig = rig.await;
    for _ in 0..30 {
        rig.read(0, 100_000).await.unwrap();
    }
    let began = Instant::now();
    rig.read(0, 100_000).await.unwrap();
    assert_eq!(rig.counters.counts(), [("slow", 1)].into());
    // The first byte, the pause, and the first byte of the rest.
    assert!(began.elapsed() < first_byte * 7 / 2, "{:?}", began.elapsed());
}

/// A body that lags time and again is left to the timeout in the end.
#[tokio::test(start_paused = true)]
async fn a_body_that_always_stops_is_given_up_in_bounded_time() {
    let rig = Rig::open(vec![1; 100_000], move |number, request| match number {
        ..30 => request.right(),
        _ => request.right().cut(0, End::Hang),
    });
    let rig = rig.await;
    for _ in 0..30 {
        rig.read(0, 100_000).await.unwrap();
    }
    let began = Instant::now();
    let error = rig.read(0, 100_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let limits = rig.object.client.options.retries;
    let most = limits.total + limits.first_byte + limits.stalled;
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    let counts = rig.counters.counts();
    assert_eq!((counts["slow"], counts["stalled"]), (3, u64::from(limits.attempts) - 1));
}

/// A server that delays the last byte of each body by 1.5 s got one request in three twice, each time
/// for that byte, and a load from it took a minute instead of ten seconds.
#[tokio::test(start_paused = true)]
async fn a_server_that_pauses_in_every_body_is_not_asked_twice() {
    let pause = Duration::from_millis(1500);
    let bytes: Vec<_> = (0..=255).cycle().take(100_000).collect();
    let rig = Rig::open(bytes.clone(), move |_, request| request.right().last_byte_after(pause));
    let rig = rig.await;
    let reads = 100;
    let began = Instant::now();
    for _ in 0..reads {
        assert!(rig.read(0, 100_000).await.unwrap() == bytes);
    }
    assert_eq!(rig.counters.counts(), [].into());
    assert!(began.elapsed() < pause * reads * 11 / 10, "{:?}", began.elapsed());
}

/// The same of a server that begins with that after it has sent bodies without a pause.
#[tokio::test(start_paused = true)]
async fn a_server_that_begins_to_pause_in_every_body_is_soon_not_asked_twice() {
    let pause = Duration::from_millis(1500);
    let rig = Rig::open(vec![1; 100_000], move |number, request| match number {
        ..64 => request.right(),
        _ => request.right().last_byte_after(pause),
    });
    let rig = rig.await;
    for _ in 0..264 {
        rig.read(0, 100_000).await.unwrap();
    }
    let counts = rig.counters.counts();
    assert!(counts.keys().eq(&["slow"]) && counts["slow"] <= 40, "{counts:?}");
}

/// A client that had no processor for a second took the response for late, although it had sent the
/// request only just before, and requested the range twice.
#[tokio::test]
async fn a_response_is_not_late_because_the_client_had_no_processor() {
    const QUICK: usize = 32; // enough to know what is late, and for the budget
    let (quick, second) = (Duration::from_millis(200), Duration::from_secs(1));
    let server = FaultServer::start(vec![1; 1000], move |number, request| match number {
        ..=QUICK => request.right().after(quick),
        _ => request.right().after(second + quick / 4),
    });
    let rig = Rig::of(RemoteOptions::with_variables(&[]), server).await;
    let read = async || rig.read(0, 1000).await.unwrap();
    for _ in 0..QUICK / 8 {
        tokio::join!(read(), read(), read(), read(), read(), read(), read(), read());
    }
    let busy = async {
        tokio::time::sleep(quick / 8).await;
        std::thread::sleep(second);
    };
    tokio::join!(read(), busy);
    assert_eq!(rig.counters.counts(), [].into());
}
