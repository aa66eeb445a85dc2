//! The faults of the server of the campaign in `chaos`.

use crate::common::fault_server::{End, Framing, Reply, Request};
use fastrand::Rng;
use std::time::Duration;

/// How a connection ends too early.
fn early_end(rng: &mut Rng) -> End {
    [End::Fin, End::Cut, End::Reset][rng.usize(..3)]
}

fn milliseconds(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(..=most))
}

fn one<'a>(rng: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[rng.usize(..choices.len())]
}

/// `right` with a fault. `file` is the object, and `flips` says whether bits may flip: that can be
/// noticed only by a checksum.
pub fn fault(rng: &mut Rng, request: &Request, right: Reply, file: &[u8], flips: bool) -> Reply {
    let len = right.body_len();
    match rng.u8(..14) {
        0..2 => right.cut(rng.usize(..=len), early_end(rng)),
        2 => right.cut_head(rng.usize(..80), early_end(rng)),
        3 => slow(rng, right),
        4 => refusal(rng),
        5..7 => wrong_range(rng, request, right, file),
        7 => other_headers(rng, right),
        8 => redirect(rng),
        9 => framing(rng, right),
        10 => right.ending(early_end(rng)),
        11 => garbage(rng),
        12 if flips && len > 0 => right.changed(|body| {
            let at = rng.usize(..body.len());
            body[at] ^= 1 << rng.u8(..8);
        }),
        // The whole object instead of the range, and the status that goes with it.
        _ => right.without("Content-Range").status(200).body(file),
    }
}

fn slow(rng: &mut Rng, right: Reply) -> Reply {
    let len = right.body_len();
    match rng.u8(..5) {
        0 => right.cut(rng.usize(..=len), End::Hang),
        1 => right.cut_head(rng.usize(1..40), End::Hang),
        2 => right.after(milliseconds(rng, 700)),
        3 => right.body_after(milliseconds(rng, 700)),
        _ => right.dripping(rng.usize(2000..80_000), milliseconds(rng, 20)),
    }
}

fn refusal(rng: &mut Rng) -> Reply {
    let statuses =
        [500, 502, 503, 503, 504, 429, 429, 408, 404, 403, 401, 412, 416, 304, 204, 302, 418];
    let reply =
        Reply::new(statuses[rng.usize(..statuses.len())]).body(b"<Error><Code>x</Code></Error>");
    match rng.u8(..3) {
        0 => reply,
        _ => reply.with(
            "Retry-After",
            one(
                rng,
                &[
                    "0",
                    "1",
                    "1",
                    "600",
                    "-1",
                    "18446744073709551616",
                    "Thu, 01 Jan 1970 00:00:00 GMT",
                    "x",
                ],
            ),
        ),
    }
}

fn wrong_range(rng: &mut Rng, request: &Request, right: Reply, file: &[u8]) -> Reply {
    let Some((first, last)) = request.range() else {
        return right.with("Content-Range", "bytes 0-0/1");
    };
    let (last, total) = (last.min(file.len() - 1), file.len());
    if first > last {
        return right; // the object has become shorter than the range is
    }
    let header = |reply: Reply, range: String| reply.with("Content-Range", range);
    match rng.u8(..11) {
        0 => right.without("Content-Range"),
        1 => header(right, format!("bytes {first}-{last}/*")),
        2 => header(right, format!("bytes */{total}")),
        3 => header(right, format!("bytes {}-{}/{total}", first + 1, last + 1)),
        4 => header(right, format!("bytes {first}-{last}/{}", total + 1)),
        5 => header(right, "bytes 0-18446744073709551615/*".to_owned()),
        6 => right.with_another("Content-Range", format!("bytes 0-0/{total}")),
        7..10 => {
            // Another range, as it says itself, sometimes of the same length.
            let from = rng.usize(..total);
            let to = if rng.bool() {
                rng.usize(from..total)
            } else {
                total.min(from + 1 + last - first) - 1
            };
            header(right.body(&file[from..=to]), format!("bytes {from}-{to}/{total}"))
        }
        _ => {
            let less = right.body_len().saturating_sub(1);
            let range = format!("bytes {first}-{}/{total}", (first + less).saturating_sub(1));
            header(right.changed(|body| body.truncate(less)), range)
        }
    }
}

fn other_headers(rng: &mut Rng, right: Reply) -> Reply {
    match rng.u8(..8) {
        0 => right.without("ETag").without("Last-Modified"),
        1 => right.with("ETag", "W/\"other\""),
        2 => right.with_another("ETag", "\"other\""),
        3 => right.with_another("Content-Length", "5"),
        4 => right.with("Content-Encoding", one(rng, &["gzip", "identity", "x"])),
        5 => right.with_another("Transfer-Encoding", "chunked"),
        6 => right.with("Connection", one(rng, &["close", "upgrade", "x"])),
        _ => right.with("Date", one(rng, &["Thu, 01 Jan 1970 00:00:00 GMT", "x"])),
    }
}

fn redirect(rng: &mut Rng) -> Reply {
    let target = one(
        rng,
        &["/hop", "/hop", "/hop", "x", "http://127.0.0.1:9/x", "ftp://x/", "http://[::", ""],
    );
    Reply::to([301, 302, 303, 307, 308][rng.usize(..5)], target)
}

fn framing(rng: &mut Rng, right: Reply) -> Reply {
    let len = right.body_len();
    let chunked = Framing::Chunked(rng.usize(1000..50_000));
    match rng.u8(..7) {
        0 => right.framed(chunked),
        1 => right.framed(Framing::Close),
        2 => right.framed(chunked).cut(rng.usize(..=len), early_end(rng)),
        3 => right.framed(Framing::Close).cut(rng.usize(..=len), early_end(rng)),
        4 => right.framed(chunked).changed(|body| body.extend_from_slice(b"more")),
        5 => right.framed(Framing::Length(Some(len + rng.usize(1..9)))).ending(early_end(rng)),
        // More than was announced, in which the next response is looked for.
        _ => right
            .changed(|body| body.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n"))
            .framed(Framing::Length(Some(len))),
    }
}

fn garbage(rng: &mut Rng) -> Reply {
    let end = early_end(rng);
    match rng.u8(..4) {
        0 => Reply::raw(&b""[..], end),
        1 => Reply::raw((0..rng.usize(..300)).map(|_| rng.u8(..)).collect::<Vec<_>>(), end),
        2 => Reply::raw("HTTP/1.1 200 OK\r\nX: y\r\n", End::Keep).endless(),
        _ => Reply::raw(
            one(
                rng,
                &[
                    "HTTP/1.1 999\r\n\r\n",
                    "HTTP/2 200\r\n\r\n",
                    "<html>",
                    "HTTP/1.1 100 Continue\r\n\r\n",
                ],
            ),
            end,
        ),
    }
}
