//! Loads from a server that refuses requests, responds late or sends invalid HTTP: which waits take
//! place, and for how long.

use crate::common::fault_server::{End, FaultServer, Framing, Reply, Request};
use crate::common::model::{Model, impatient, limits, loader, once};
use crate::common::{in_time, until};
use ringload::{ErrorKind, MemoryLimit, Order};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const SECOND: Duration = Duration::from_secs(1);

/// When a server answers that nobody is to wait for.
const LATE: Duration = Duration::from_secs(1200);

/// The reason that the summary counts a status under.
fn reason(status: u16) -> &'static str {
    if [429, 503].contains(&status) { "throttled" } else { "server error" }
}

#[test]
fn requests_are_repeated_after_server_errors() {
    let model = Model::small();
    for status in [429, 500, 502, 503, 504] {
        let retries = model.recovers(once(move |_| Reply::new(status).body(b"in trouble")));
        assert_eq!(retries, [(reason(status), 1)].into(), "{status}");
    }
    for status in [500, 503] {
        let (kind, sentence, requests) = model.fails(move |_, _| Reply::new(status));
        assert_eq!((kind, requests), (ErrorKind::Io, limits().attempts as usize), "{sentence}");
        assert!(sentence.contains(&status.to_string()), "{sentence}");
        assert!(sentence.contains("attempts used up"), "{sentence}");
    }
    // At the opening too; its retries are of the client and not of one load.
    let server = FaultServer::start(model.file.clone(), |number, request| match number {
        0 => Reply::new(503),
        _ => request.right(),
    });
    model.load(&loader(), &server.url()).unwrap();
}

#[test]
fn what_a_server_asks_for_in_retry_after_is_kept() {
    let model = Model::small();
    for status in [429, 500, 502, 503, 504] {
        let server = model.serve(once(move |_| Reply::new(status).with("Retry-After", "1")));
        let summary = model.load(&loader(), &server.url()).unwrap();
        assert_eq!(summary.retries, [(reason(status), 1)].into());
        let waited = server.seen()[2].at - server.seen()[1].at;
        assert!(waited >= SECOND, "{status}: {waited:?}"); // and not longer: `source::object::tests`
    }
    // Dates have whole seconds: this one is 2 to 3 of them ahead.
    let date = |_: &Request| {
        let date = httpdate::fmt_http_date(SystemTime::now() + 3 * SECOND);
        Reply::new(503).with("Retry-After", date)
    };
    let server = model.serve(once(date));
    model.load(&loader(), &server.url()).unwrap();
    let waited = server.seen()[2].at - server.seen()[1].at;
    assert!((SECOND..LATE).contains(&waited), "{waited:?}");
    // Longer than all may take: not waited for at all.
    let mut limits = limits();
    limits.total = 10 * SECOND;
    let loader = loader().retry_limits(limits);
    let (kind, sentence, requests) =
        model.fails_with(&loader, |_, _| Reply::new(503).with("Retry-After", "3600"));
    assert_eq!((kind, requests), (ErrorKind::Io, 1));
    assert!(sentence.contains("it asks to wait 3600 s; retries end 10 s"), "{sentence}");
    // Nonsense is as good as none.
    let nonsense = |_: &Request| Reply::new(503).with("Retry-After", "soon");
    assert_eq!(model.recovers(once(nonsense)), [("throttled", 1)].into());
}

/// Stores say in the body why they refuse: a presigned URL has expired, an address style is wanted.
#[test]
fn the_words_of_the_store_are_reported() {
    let model = Model::small();
    let xml = |code: &str, message: &str| {
        format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")
    };
    for (status, body, said) in [
        (403, xml("AccessDenied", "Request has expired"), "AccessDenied: Request has expired"),
        (400, xml("InvalidRequest", "Use virtual hosts"), "InvalidRequest: Use virtual hosts"),
        (429, r#"{"error":"Too many, back in an hour"}"#.to_owned(), "Too many, back in an hour"),
    ] {
        let reply = move |_: usize, _: &Request| {
            Reply::new(status).with("Retry-After", "3600").body(body.as_bytes())
        };
        let (_, sentence, _) = model.fails(reply);
        assert!(sentence.contains(&format!("({said})")), "{sentence}");
    }
}

#[test]
fn refusals_are_told_at_once() {
    let model = Model::small();
    for (status, kind) in [
        (400, ErrorKind::InvalidInput),
        (401, ErrorKind::PermissionDenied),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (410, ErrorKind::NotFound),
        (418, ErrorKind::Io),
        (204, ErrorKind::Io),
    ] {
        for from in [0, 1] {
            let server = FaultServer::start(model.file.clone(), move |number, request| {
                if number >= from { Reply::new(status).body(b"no") } else { request.right() }
            });
            let error = model.load(&loader(), &server.url()).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            assert_eq!(server.seen().len(), from + 1);
        }
    }
    // An empty object has no first byte to give.
    let server = FaultServer::start(Vec::new(), |_, request| request.right());
    let error = model.load(&loader(), &server.url()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint, "{error}");
    // One that is encoded cannot be cut into ranges.
    let gzip = |_: usize, request: &Request| request.right().with("Content-Encoding", "gzip");
    let (kind, sentence, _) = model.fails(gzip);
    assert_eq!(kind, ErrorKind::Unsupported, "{sentence}");
    let identity =
        |_: usize, request: &Request| request.right().with("Content-Encoding", "identity");
    assert!(model.recovers(identity).is_empty());
}

/// What a load makes of `reply`, once and always, as the answer to a range.
#[track_caller]
fn nonsense(model: &Model, what: &str, reply: &Reply) {
    let first = reply.clone();
    let retries = model.recovers_from_late(move |_| first.clone());
    assert!(!retries.is_empty(), "{what}");
    let always = reply.clone();
    let (kind, sentence, requests) = model.fails_from_late(move |_, _| always.clone());
    assert_eq!((kind, requests), (ErrorKind::Io, limits().attempts as usize), "{what}: {sentence}");
}

#[test]
fn heads_that_are_no_heads_are_asked_for_again() {
    let model = Model::small();
    let raw = |bytes: &[u8]| Reply::raw(bytes, End::Hang);
    for garbage in [
        &b"\x00\xff\x16\x03\x01 no protocol at all\r\n\r\n"[..],
        b"HTTP/9.9 206 Partial\r\n\r\n",
        b"HTTP/1.1 two Partial\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nno colon\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"<html>it works</html>\r\n\r\n",
    ] {
        nonsense(&model, &String::from_utf8_lossy(garbage), &raw(garbage));
    }
    let line = b"X-Filler: 0123456789012345678901234567890123456789\r\n";
    nonsense(&model, "an endless head", &Reply::raw(*b"HTTP/1.1 206 Partial\r\n", End::Hang));
    let endless = Reply::raw(*b"HTTP/1.1 100 Continue\r\n\r\n", End::Keep).endless();
    nonsense(&model, "endless interim answers", &endless.dripping(25, SECOND / 100));
    let long = [b"HTTP/1.1 206 Partial\r\n", &line.repeat(100_000)[..]].concat();
    nonsense(&model, "a head of megabytes", &raw(&long));
}

#[test]
fn a_body_that_stalls_is_given_up_and_asked_for_elsewhere() {
    let model = Model::small();
    let stalled = |request: &Request| request.right().cut(1000, End::Hang);
    assert!(model.recovers_from_late(stalled).contains("stalled"));
    // One byte a second is not better, nor is one every now and then. All bytes would take at least
    // twenty minutes, which is longer than a test may take.
    for pause in [SECOND, SECOND / 50] {
        let drip = move |request: &Request| request.right().dripping(1, pause);
        let framed = move |request: &Request| {
            request.right().cut(1, End::Keep).framed(Framing::Chunked(1)).body_after(pause)
        };
        assert!(!model.recovers_from_late(drip).is_empty());
        assert!(!model.recovers_from_late(framed).is_empty());
    }
    let (kind, sentence, requests) = model.fails_from_late(move |_, request| stalled(request));
    assert_eq!((kind, requests), (ErrorKind::Io, limits().attempts as usize), "{sentence}");
    assert!(sentence.contains("stopped sending"), "{sentence}");
}

/// A refusal's body may take as long as any other: it must not be waited for byte by byte.
#[test]
fn a_refusal_whose_body_never_ends_is_bounded() {
    let model = Model::small();
    let drip =
        |_: usize, _: &Request| Reply::new(500).body(&[b'x'; 10_000]).dripping(10, SECOND / 20);
    let endless = |_: usize, _: &Request| {
        Reply::new(500).body(&[b'x'; 10_000]).framed(Framing::Close).endless()
    };
    for answer in [drip, endless] {
        let (kind, sentence, requests) = model.fails_from_late(answer);
        assert_eq!((kind, requests), (ErrorKind::Io, limits().attempts as usize), "{sentence}");
    }
}

#[test]
fn a_late_first_byte_is_not_waited_for() {
    let model = Model::small();
    let late = |request: &Request| request.right().after(LATE);
    assert!(model.recovers_from_late(late).contains("timeout"));
    let (kind, sentence, _) = model.fails_from_late(move |_, request| late(request));
    assert_eq!(kind, ErrorKind::Io, "{sentence}");
    assert!(sentence.contains("did not answer in 0.5 s"), "{sentence}");
    // All in all: attempts enough, but no time.
    let mut limits = impatient();
    limits.attempts = 1000;
    limits.total = SECOND;
    let server = model.serve(move |_, request| late(request));
    let error = model.load(&loader().retry_limits(limits), &server.url()).unwrap_err();
    assert!(error.to_string().contains("time used up"), "{error}");
    // An attempt takes half a second. The object may have been opened in two.
    assert!(server.seen().len() <= 2 + 2, "{:?}", server.seen().len());
}

/// A caller who takes his time with tensors, for longer than a body may stall.
#[test]
fn a_slow_consumer_is_no_stall() {
    let model = Model::new(&[300_000; 12]);
    let mut limits = limits();
    limits.stalled = 2 * SECOND; // enough for a reply on any machine
    for order in [Order::Completion, Order::File] {
        let server = model.serve(|_, request| request.right());
        let (url, tensors) = (server.url(), model.tensors.clone());
        let loader = loader().retry_limits(limits).order(order);
        let loader = loader.memory_limit(MemoryLimit::Bytes(1 << 20)); // of three tensors
        let retries = in_time("a slow consumer", move || {
            let mut stream = loader.stream(url.as_str()).unwrap();
            for (number, tensor) in stream.by_ref().enumerate() {
                let tensor = tensor.unwrap();
                if number % 4 == 0 {
                    thread::sleep(limits.stalled + SECOND / 10);
                }
                assert!(tensor.bytes() == tensors[tensor.name()].bytes);
            }
            stream.summary().retries
        });
        assert!(retries.is_empty(), "{retries:?}");
    }
}

#[test]
fn a_stream_that_is_dropped_waits_for_no_server() {
    let model = Model::new(&[300_000; 4]);
    type Change = fn(&Request) -> Reply;
    let hangs: [Change; 4] = [
        |request| request.right().cut(100_000, End::Hang),
        |request| request.right().after(LATE),
        |_| Reply::new(503).with("Retry-After", "600"),
        |_| Reply::new(500).body(b"in trouble").cut(3, End::Hang),
    ];
    for hang in hangs {
        let server = model.serve(move |_, request| hang(request));
        let url = server.url();
        let took = in_time("dropping a stream", move || {
            let mut limits = limits();
            (limits.total, limits.first_byte, limits.stalled) = (LATE, LATE, LATE);
            let stream = loader().retry_limits(limits).stream(url.as_str()).unwrap();
            until("it requests data", || server.seen().len() >= 2);
            thread::sleep(SECOND / 5); // it waits for the reply, or after it
            let began = Instant::now();
            drop(stream);
            began.elapsed()
        });
        assert!(took < LATE / 20, "{took:?}");
    }
}

/// One answer in a hundred that dawdles must not hold up the load.
#[test]
fn a_late_answer_is_asked_for_again_on_another_connection() {
    let model = Model::new(&[300_000; 60]);
    let dawdling = 30;
    let server = model.serve(move |number, request| match number {
        // The second request for the same bytes has another number, and is answered at once.
        _ if number == dawdling => request.right().after(LATE),
        _ => request.right(),
    });
    // The limits do not give up a late reply before the test counts as hanging.
    let loader = loader().connections(2).memory_limit(MemoryLimit::Bytes(4 << 20));
    let summary = model.load(&loader, &server.url()).unwrap();
    assert!(
        summary.retries.get("hedged").is_some_and(|&hedged| hedged >= 1),
        "{:?}",
        summary.retries
    );
    let ranges: Vec<_> = server.seen().iter().filter_map(Request::range).collect();
    let twice = ranges.iter().filter(|range| ranges.iter().filter(|r| r == range).count() == 2);
    assert!(twice.count() >= 2, "no range was asked for twice");
}
