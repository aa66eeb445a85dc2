//! Memory is bound to a range of an object when its answer has come, and not before.
//!
//! Past limit: a ring of 256 MiB had 32 ranges of 8 MiB on the way, whatever the store's time to the
//! first byte was, as each had its memory from the request on. Hazards of binding late: an answer that
//! waits for memory when the load is dropped, when the server gives up, or when its body breaks off.

use crate::common::command::{ringload, run};
use crate::common::fault_server::{End, Request};
use crate::common::model::{Model, limits, loader};
use crate::common::{in_time, until};
use ringload::{MemoryLimit, Tensor, TensorStream};
use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Tensors of one range each, of which the limit below holds three.
const SIZES: [usize; 8] = [TENSOR_BYTES; 8];
const TENSOR_BYTES: usize = 250_000;
const LIMIT: MemoryLimit = MemoryLimit::Bytes(800 << 10);

/// Whether a request is the first one for a whole tensor.
#[derive(Default)]
struct FirstTime(Mutex<HashSet<usize>>);

impl FirstTime {
    fn of(&self, request: &Request) -> bool {
        let (first, last) = request.range().unwrap();
        last - first + 1 == TENSOR_BYTES && self.0.lock().unwrap().insert(first)
    }
}

/// Takes as many tensors as the limit holds, so that all memory is in use.
fn take_all_memory(stream: &mut TensorStream) -> Vec<Tensor> {
    stream.by_ref().take(3).map(Result::unwrap).collect()
}

/// A store of 100 ms saw as many requests as fit the memory, and then waited.
#[test]
fn more_ranges_are_requested_than_fit_the_memory() {
    let model = Model::new(&SIZES);
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let server = model.serve(move |_, request| request.right().once_open(&gate));
    let (url, count) = (server.url(), SIZES.len());
    in_time("a load through little memory", move || {
        let loader = loader().connections(8).memory_limit(LIMIT);
        let stream = loader.stream(url.as_str()).unwrap();
        // The first request is that of the opening.
        until("all ranges are requested", || server.seen().len() > count);
        opened.store(true, Ordering::Release);
        for tensor in stream {
            let tensor = tensor.unwrap();
            assert!(tensor.bytes() == model.tensors[tensor.name()].bytes);
        }
        let ranges: Vec<_> = server.seen().iter().filter_map(Request::range).collect();
        let twice =
            ranges.iter().filter(|range| ranges.iter().filter(|it| it == range).count() > 1);
        assert_eq!(twice.count(), 0, "nothing is fetched twice: {ranges:?}");
    });
}

#[test]
fn a_load_is_dropped_while_answers_wait_for_memory() {
    let model = Model::new(&SIZES);
    let server = model.serve(|_, request| request.right());
    let (url, count) = (server.url(), SIZES.len());
    let took = in_time("dropping a load", move || {
        let mut stream = loader().connections(8).memory_limit(LIMIT).stream(url.as_str()).unwrap();
        let held = take_all_memory(&mut stream);
        until("all ranges are requested", || server.seen().len() > count);
        thread::sleep(Duration::from_millis(100)); // the answers wait
        let began = Instant::now();
        drop(stream);
        let took = began.elapsed();
        assert!(held.iter().all(|it| it.bytes() == model.tensors[it.name()].bytes));
        took
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_body_that_breaks_off_after_its_memory_was_bound_is_asked_for_again() {
    let model = Model::new(&SIZES);
    let times = FirstTime::default();
    let server = model.serve(move |_, request| match times.of(request) {
        true => request.right().cut(100_000, End::Reset),
        false => request.right(),
    });
    let loader = loader().connections(8).memory_limit(LIMIT);
    let summary = model.load(&loader, &server.url()).unwrap();
    assert_eq!(summary.retries.values().sum::<u64>(), 8, "{:?}", summary.retries);
}

/// A server closes a connection on which nothing was received for a minute. That is no failure of the
/// server: the range is requested again, whatever the limit of attempts is.
#[test]
fn an_answer_that_waited_until_the_server_gave_up_is_asked_for_again() {
    let model = Model::new(&SIZES);
    let waiting = model.data_offset() + 3 * TENSOR_BYTES;
    let times = FirstTime::default();
    let server = model.serve(move |_, request| {
        let waits = request.range().is_some_and(|(first, _)| first >= waiting);
        match waits && times.of(request) {
            true => request.right().cut(1000, End::Fin),
            false => request.right(),
        }
    });
    let url = server.url();
    let retries = in_time("a load whose answers wait", move || {
        let mut limits = limits();
        limits.attempts = 1;
        let loader = loader().retry_limits(limits).connections(8).memory_limit(LIMIT);
        let mut stream = loader.stream(url.as_str()).unwrap();
        let held = take_all_memory(&mut stream);
        thread::sleep(Duration::from_millis(300));
        drop(held);
        for tensor in stream.by_ref() {
            let tensor = tensor.unwrap();
            assert!(tensor.bytes() == model.tensors[tensor.name()].bytes);
        }
        stream.summary().retries
    });
    assert_eq!(retries, [("closed while it waited", 5)].into());
}

/// A load with more connections than files may be open failed.
#[test]
fn fewer_connections_are_used_under_a_limit_of_open_files() {
    let model = Model::new(&[300_000; 40]);
    let late = Duration::from_millis(100);
    let server = model.serve(move |_, request| request.right().after(late));
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]).arg(ringload().get_program());
    command.args(["load", &server.url(), "--connections", "512", "--read-size", "16KiB"]);
    let finished = run(&mut command);
    assert!(finished.status.success(), "{finished:#?}");
    assert!(finished.stdout.contains("ulimit -n permits 192 of 512"), "{finished:#?}");
}

/// Files that a program opens meanwhile were not counted: the load failed, as no connection could be
/// opened.
#[test]
fn fewer_connections_are_used_when_the_process_has_too_many_files() {
    let model = Model::new(&[300_000; 40]);
    let late = Duration::from_millis(100);
    let server = model.serve(move |_, request| request.right().after(late));
    let mut command = Command::new("bash");
    // Of the 192 connections that the limit permits, about 100 can be opened.
    let script =
        "for _ in {1..140}; do exec {file}</dev/null; done; ulimit -n 256; exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(ringload().get_program());
    command.args(["load", &server.url(), "--connections", "512", "--read-size", "16KiB"]);
    let finished = run(&mut command);
    assert!(finished.status.success(), "{finished:#?}");
    let warnings = finished.stderr.matches("too many open files").count();
    assert_eq!(warnings, 1, "{finished:#?}");
    let connections: HashSet<_> = server.seen().iter().map(|request| request.connection).collect();
    assert!((30..130).contains(&connections.len()), "{}", connections.len());
}
