//! Loads from a server that misbehaves: byte-identical tensors or a typed error, in bounded time.
//!
//! Every response is scripted (`tests/support/fault_server.rs`). Each tensor that a load returns is
//! compared with the stored bytes. Bodies that break off at every single byte, and waits of minutes,
//! are tested on a paused clock, in `source::object::tests`.

use crate::common::fault_server::{ETAG, End, FaultServer, Framing, Reply, Request};
use crate::common::model::{Model, loader, once};
use ringload::{ErrorKind, MemoryLimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn a_good_server_gets_one_request_for_the_header_and_one_for_the_data() {
    let model = Model::small();
    let server = model.serve(|_, request| request.right());
    let summary = model.load(&loader(), &server.url()).unwrap();
    assert!(summary.retries.is_empty(), "{summary:?}");
    let ranges: Vec<_> = server.seen().iter().map(|request| request.range().unwrap()).collect();
    assert_eq!(ranges, [(0, 65_535), (model.data_offset(), model.file.len() - 1)]);
    assert_eq!(server.seen()[1].header("if-match"), Some(ETAG));
}

/// With whole loads. The module head says where all offsets are tested.
#[test]
fn a_body_that_breaks_off_is_resumed() {
    let model = Model::small();
    let server = model.serve(|_, request| {
        let (how, at) = request.target[1..].split_once('/').unwrap().0.split_once('-').unwrap();
        let end = if how == "reset" { End::Reset } else { End::Fin };
        match request.nth {
            1 => request.right().cut(at.parse().unwrap(), end),
            _ => request.right(),
        }
    });
    let offsets = (0..65_536).step_by(4_099).chain([1, 16_383, 16_384, 65_535]);
    let cases: Vec<_> = offsets.flat_map(|at| [("reset", at), ("fin", at)]).collect();
    let (model, server) = (&model, &server);
    thread::scope(|scope| {
        for cases in cases.chunks(cases.len().div_ceil(8)) {
            scope.spawn(move || {
                for (how, at) in cases {
                    let url = format!("{}/{how}-{at}/x.safetensors", server.origin());
                    let summary = model.load(&loader(), &url).unwrap();
                    assert_eq!(summary.retries.values().sum::<u64>(), 1, "{url}: {summary:?}");
                    let target = format!("/{how}-{at}/x.safetensors");
                    let seen = server.seen();
                    let last = seen.iter().rfind(|request| request.target == target).unwrap();
                    let (first, _) = last.range().unwrap();
                    // Nothing that has come is asked for again.
                    assert_eq!(first, model.data_offset() + at, "{url}");
                }
            });
        }
    });
}

#[test]
fn a_head_that_breaks_off_is_asked_for_again() {
    let model = Model::small();
    for end in [End::Reset, End::Fin] {
        for missing in [1, 4, 20, 10_000] {
            let retries =
                model.recovers(once(move |request| request.right().cut_head(missing, end)));
            // On a connection that served before, that is no fault of the server's.
            assert!(retries.values().sum::<u64>() <= 1, "{end:?} {missing}: {retries:?}");
        }
        let (kind, sentence, requests) =
            model.fails(move |_, request| request.right().cut_head(4, end));
        assert_eq!(kind, ErrorKind::Io, "{sentence}");
        assert!(requests <= 5, "{requests}");
    }
}

#[test]
fn truncated_and_over_long_bodies_are_found_however_they_are_framed() {
    let model = Model::small();
    let chunked = Framing::Chunked(10_000);
    for framing in [Framing::Length(None), chunked, Framing::Close] {
        for cut in [0, 1, 30_000, 65_535] {
            let retries =
                model.recovers(once(move |right| right.right().framed(framing).cut(cut, End::Fin)));
            assert_eq!(retries.values().sum::<u64>(), 1, "{framing:?} {cut} {retries:?}");
        }
        // Right, but framed otherwise.
        let retries = model.recovers(move |_, request| request.right().framed(framing));
        assert!(retries.is_empty(), "{framing:?} {retries:?}");
    }
    for framing in [chunked, Framing::Close] {
        let too_long = move |request: &Request| {
            request.right().framed(framing).changed(|body| body.extend_from_slice(b"and more"))
        };
        assert_eq!(model.recovers(once(too_long)), [("over-long", 1)].into());
        let (kind, sentence, requests) = model.fails(move |_, request| too_long(request));
        assert_eq!((kind, requests), (ErrorKind::Io, 4), "{sentence}");
        assert!(sentence.contains("more bytes than it announced"), "{sentence}");
    }
    // A wrong length in the head, and more bytes than a right one says.
    let claims = |more: usize| {
        move |request: &Request| {
            let right = request.range().unwrap();
            let claimed = right.1 - right.0 + 1 + more;
            request.right().framed(Framing::Length(Some(claimed))).ending(End::Fin)
        }
    };
    assert_eq!(model.recovers(once(claims(5))), [("wrong range", 1)].into());
    let model = Model::new(&[600_000; 8]);
    let beyond = |_: usize, request: &Request| {
        let len = request.range().map(|(first, last)| last - first + 1);
        let reply =
            request.right().changed(|body| body.extend_from_slice(b"HTTP/1.1 200 and more"));
        reply.framed(Framing::Length(len))
    };
    let server = model.serve(beyond);
    let loader = loader().memory_limit(MemoryLimit::Bytes(2 << 20));
    model.load(&loader, &server.url()).unwrap();
}

#[test]
fn answers_with_another_range_are_never_used() {
    let model = Model::small();
    type Change = fn(&Request) -> Reply;
    let (another, invalid) = ("another range", "the invalid header Content-Range");
    let ranges: [(Change, &str, &str); 6] = [
        (
            |request| request.right().without("Content-Range"),
            "none",
            "without the header Content-Range",
        ),
        (
            |request| {
                let parts = "multipart/byteranges; boundary=x";
                request.right().without("Content-Range").with("Content-Type", parts)
            },
            "several parts",
            "with several parts (multipart/byteranges)",
        ),
        (
            |request| request.right().with("Content-Range", "bytes 0-65535/*"),
            "from the start",
            another,
        ),
        (|request| request.right().with("Content-Range", "lines 1-2/3"), "no bytes", invalid),
        (|request| request.right().with("Content-Range", "bytes 5-2/9"), "backwards", invalid),
        (
            |request| {
                let (first, last) = request.range().unwrap();
                let range = format!("bytes {first}-{}/*", last - 1);
                request
                    .right()
                    .with("Content-Range", range)
                    .changed(|body| body.truncate(body.len() - 1))
            },
            "one byte less",
            another,
        ),
    ];
    for (broken, what, says) in ranges {
        assert_eq!(model.recovers(once(broken)), [("wrong range", 1)].into(), "{what}");
        let (kind, sentence, requests) = model.fails(move |_, request| broken(request));
        assert_eq!((kind, requests), (ErrorKind::Io, 3), "{what}: {sentence}");
        assert!(sentence.contains(says), "{what}: {sentence}");
    }
}

/// `Content-Range: bytes 0-9/*` is a legal response of a server that does not know the length yet. It
/// was called "another range", and a broken cache was suspected. A HEAD request tells the length.
#[test]
fn a_length_that_ranges_do_not_tell_is_requested_by_head() {
    type Script = fn(&Request) -> Reply;
    let model = Model::small();
    fn unknown(request: &Request) -> Reply {
        let (first, last) = request.range().unwrap();
        let last = last.min(Model::small().file.len() - 1);
        request.right().with("Content-Range", format!("bytes {first}-{last}/*"))
    }
    let serve = |script: Script| {
        FaultServer::start(model.file.clone(), move |_, request| match request.method.as_str() {
            "HEAD" => script(request),
            _ => unknown(request),
        })
    };
    let server = serve(Request::right);
    assert!(model.load(&loader(), &server.url()).unwrap().retries.is_empty());
    assert_eq!(server.seen().iter().filter(|request| request.method == "HEAD").count(), 1);
    // No length, or that of another version.
    let replies: [(Script, &str); 2] = [
        (|_| Reply::new(405), "does not say how long the object is"),
        (|request| request.right().with("ETag", "\"two\""), "replaced the object while it was"),
    ];
    for (reply, part) in replies {
        let server = serve(reply);
        let error = model.load(&loader(), &server.url()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&server.url()), "{error}");
    }
}

#[test]
fn servers_without_ranges_are_told_apart_from_those_that_answer() {
    let model = Model::new(&[300_000]);
    let whole = |request: &Request| {
        let whole = request.right().status(200).without("Content-Range");
        let file = Model::new(&[300_000]).file;
        whole.body(&file)
    };
    for at_opening in [true, false] {
        let server = FaultServer::start(model.file.clone(), move |number, request| {
            if at_opening || number > 0 { whole(request) } else { request.right() }
        });
        let error = model.load(&loader(), &server.url()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("supports range requests"), "{error}");
        assert!(error.to_string().contains(&server.url()), "{error}");
    }
    // A whole object that is shorter than the first range is an answer to that.
    let model = Model::new(&[1000]);
    let server = FaultServer::start(model.file.clone(), |_, request| match request.nth {
        0 => request.right().status(200).without("Content-Range"),
        _ => request.right(),
    });
    model.load(&loader(), &server.url()).unwrap();
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let model = Model::small();
    for status in [301, 302, 303, 307, 308] {
        let server = FaultServer::start(model.file.clone(), move |_, request| {
            match request.target.as_str() {
                "/x.safetensors" => Reply::to(status, "/hop/5"),
                "/hop/0" => request.right(),
                hop => Reply::to(status, (hop[5..].parse::<u32>().unwrap() - 1).to_string()),
            }
        });
        assert!(model.load(&loader(), &server.url()).unwrap().retries.is_empty());
        for from in [0, 1] {
            let server = FaultServer::start(model.file.clone(), move |number, request| {
                if number >= from { Reply::to(status, "/x.safetensors") } else { request.right() }
            });
            let error = model.load(&loader(), &server.url()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("redirects in a row"), "{error}");
            assert!(server.seen().len() < 20);
        }
    }
    for target in ["ftp://elsewhere/", "http://", "http://[:::"] {
        let (kind, sentence, _) = model.fails(move |_, _| Reply::to(302, target));
        assert_eq!(kind, ErrorKind::Io, "{sentence}");
        assert!(sentence.contains("not a URL"), "{sentence}");
    }
    let (kind, sentence, _) = model.fails(|_, _| Reply::new(302));
    assert_eq!(kind, ErrorKind::Io, "{sentence}");
}

#[test]
fn secrets_stay_with_the_server_they_are_for() {
    let model = Model::small();
    let other = FaultServer::start(model.file.clone(), |_, request| request.right());
    let target = other.url();
    let server = FaultServer::start(Vec::new(), move |_, _| Reply::to(302, target.clone()));
    let loader = loader().header("Authorization: Bearer s3cret").unwrap();
    model.load(&loader, &server.url()).unwrap();
    assert_eq!(server.seen().len(), 1, "the second range is asked of the other one at once");
    assert_eq!(server.seen()[0].header("authorization"), Some("Bearer s3cret"));
    assert_eq!(other.seen().len(), 2);
    assert!(other.seen().iter().all(|request| request.header("authorization").is_none()));
}

/// How often an object that differs is requested again, to see whether it was replaced or whether
/// several servers have copies of it.
const COPY_REQUESTS: usize = 3;

#[test]
fn an_object_that_is_replaced_is_never_mixed() {
    let model = Model::small();
    let other_etag = |request: &Request| request.right().with("ETag", "\"two\"");
    type Change = fn(&Request) -> Reply;
    let changes: [(Change, &str, usize); 6] = [
        (other_etag, "its ETag differs", 1 + COPY_REQUESTS),
        (|request| request.right().with("ETag", "W/\"one\""), "and in a weak form", 1),
        (|request| request.right().without("ETag"), "leaves it out now", 1),
        (|_| Reply::new(412), "its ETag differs", 1 + COPY_REQUESTS),
        (|_| Reply::new(416).with("Content-Range", "bytes */100"), "its length differs", 1),
        (
            |request| {
                let (first, last) = request.range().unwrap();
                request.right().with("Content-Range", format!("bytes {first}-{last}/{}", last + 2))
            },
            "its length differs",
            1,
        ),
    ];
    for (change, says, expected_requests) in changes {
        let (kind, sentence, requests) = model.fails(move |_, request| change(request));
        assert_eq!((kind, requests), (ErrorKind::Changed, expected_requests), "{sentence}");
        assert!(sentence.contains(says), "{sentence}");
    }
    // Between two parts of one range.
    let (kind, sentence, _) = model.fails(move |number, request| match number {
        0 => request.right().cut(1000, End::Reset),
        _ => other_etag(request),
    });
    assert_eq!(kind, ErrorKind::Changed, "{sentence}");
}

/// Stores that do not know `If-Match` answer 501, and nothing of them could be read. The ETag of each
/// response is compared all the same.
#[test]
fn servers_without_preconditions_are_read_without_them() {
    let model = Model::small();
    let refusing = |request: &Request| match request.header("if-match") {
        Some(_) => Reply::new(501),
        None => request.right(),
    };
    assert_eq!(model.recovers(move |_, request| refusing(request))["no preconditions"], 1);
    let (kind, sentence, _) = model.fails(move |_, request| match request.header("if-match") {
        Some(_) => Reply::new(501),
        None => request.right().with("ETag", "\"two\""),
    });
    assert_eq!(kind, ErrorKind::Changed, "{sentence}");
    let (kind, sentence, requests) = model.fails(|_, _| Reply::new(501));
    assert_eq!((kind, requests), (ErrorKind::Io, 2), "{sentence}");

    // The second range was on its way when the first 501 arrived, and its own 501 ended the load.
    let second_came = Arc::new(AtomicBool::new(false));
    let retries = Model::new(&[9 << 20, 9 << 20]).recovers(move |number, request| {
        second_came.fetch_or(number == 1, Ordering::Relaxed);
        refusing(request).once_open(&second_came)
    });
    assert!(retries["no preconditions"] >= 2, "{retries:?}");
}

/// S3 answers a range of an empty object with 416 and without `Content-Range`, which was taken for the
/// answer of a broken cache.
#[test]
fn an_empty_object_is_named_as_such() {
    for range in [None, Some("bytes */0")] {
        let server = FaultServer::start(Vec::new(), move |_, _| match range {
            Some(range) => Reply::new(416).with("Content-Range", range),
            None => Reply::new(416),
        });
        let error = Model::small().load(&loader(), &server.url()).unwrap_err().to_string();
        assert!(error.contains("the file is empty; was its download finished?"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}
