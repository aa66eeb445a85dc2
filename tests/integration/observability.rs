//! What a program sees of its loads while they run, and after them: `Progress`, and the line of the log.
//!
//! Past blindness: progress counted tensors that were handed out, so that a load of few large tensors
//! stood at nothing until its end, and `load`, `open` and `read_into` had none. Hazards: bytes that are
//! counted twice, after a failure or a restart, and a count that goes back or never gets to the end.

use crate::common::fault_server::End;
use crate::common::model::{Model, loader, once};
use crate::common::{Expected, in_time, until};
use ringload::{
    Cancellation, Dtype, Loader, Location, MemoryLimit, Progress, ReadPath, ReadRequest, Slice,
    Slices,
};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

fn counts(progress: &Progress) -> (u64, u64) {
    (progress.done_bytes(), progress.total_bytes())
}

fn on_disk(model: &Model) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, &model.file).unwrap();
    (directory, path)
}

#[test]
fn every_call_counts_what_it_is_to_hand_out() {
    let model = Model::new(&[3_000_000, 0, 1_000_000]);
    let (directory, path) = on_disk(&model);
    let (all, headers) = (4_000_000, model.data_offset() as u64);
    for read_path in [ReadPath::Auto, ReadPath::Direct, ReadPath::Buffered, ReadPath::Mapped] {
        let progress = Progress::new();
        let watched = Loader::new().read_path(read_path).progress(&progress);
        watched.open(&path).unwrap();
        assert_eq!((counts(&progress), progress.header_bytes()), ((0, 0), headers));
        watched.load(&path).unwrap();
        assert_eq!((counts(&progress), progress.header_bytes()), ((all, all), 2 * headers));
        let mut memory = vec![0; 5000];
        let mut requests = [ReadRequest::new(Location::from(path.as_path()), 100, &mut memory)];
        watched.read_into(&mut requests, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(counts(&progress), (all + 5000, all + 5000), "calls add up");
    }
    // Of an object, as files are copied.
    let server = model.serve(|_, request| request.right());
    let progress = Progress::new();
    let watched = loader().progress(&progress);
    watched.download_checkpoint(server.url().as_str(), directory.path()).unwrap().finish().unwrap();
    let (done, total) = counts(&progress);
    // The page of the header came when the file was opened.
    assert!(done == total && total > all - 4096, "{progress:?}");
}

/// Casts make more bytes of those that are read, and a part of rows is read with what lies between.
#[test]
fn the_whole_is_what_the_caller_gets() {
    let tensor = Expected::new("t", Dtype::BF16, &[1000, 500], 1);
    let (_directory, path) = on_disk(&Model::of(&[tensor]));
    let progress = Progress::new();
    let cast = Loader::new().dtype(Dtype::F32).progress(&progress);
    cast.load(&path).unwrap();
    assert_eq!(counts(&progress), (2_000_000, 2_000_000));
    let progress = Progress::new();
    let slices = Slices::default().with("t", Slice::share(1, 0, 2)).unwrap();
    Loader::new().slices(slices).progress(&progress).load(&path).unwrap();
    assert_eq!(counts(&progress), (500_000, 500_000));
}

/// The server sends the first part of the only tensor, and the rest when it may.
#[test]
fn bytes_count_while_a_tensor_arrives() {
    let model = Model::new(&[2_000_000]);
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let server = model.serve(move |number, request| match number {
        // The rest is requested again, as the connection breaks off.
        0 => request.right().cut(900_000, End::Reset),
        _ => request.right().once_open(&opened),
    });
    let (progress, url) = (Progress::new(), server.url());
    let watched = loader().read_bytes(8 << 20).connections(1).progress(&progress);
    let loading = thread::spawn(move || watched.load(url.as_str()));
    until("a part has arrived", || progress.done_bytes() > 0);
    let (done, total) = counts(&progress);
    assert!((1..=900_000).contains(&done) && total == 2_000_000, "{progress:?}");
    gate.store(true, Ordering::Release);
    in_time("the load", || loading.join().unwrap()).unwrap();
    assert_eq!(counts(&progress), (2_000_000, 2_000_000), "the part was not counted twice");
}

/// A load by names is restarted again and again, and reads again what it had read ahead.
#[test]
fn restarts_of_a_load_by_names_count_nothing_twice() {
    let model = Model::new(&[90_000; 40]);
    let (_directory, path) = on_disk(&model);
    let progress = Progress::new();
    let limited = Loader::new().memory_limit(MemoryLimit::Bytes(400_000)).progress(&progress);
    let tensors = limited.by_name(&path).unwrap();
    let mut names: Vec<_> = model.tensors.keys().collect();
    fastrand::Rng::with_seed(7).shuffle(&mut names);
    let (mut got, mut last) = (0, 0);
    for name in names {
        got += tensors.get(name).unwrap().len_bytes() as u64;
        let (done, total) = counts(&progress);
        assert!(got <= done && last <= done && done <= total, "{got} {last} {progress:?}");
        last = done;
    }
    let summary = tensors.finish().unwrap();
    let read: u64 = summary.read_bytes.values().sum();
    assert!(read > summary.bytes, "it was restarted: {summary:?}");
    assert_eq!(counts(&progress), (3_600_000, 3_600_000));
}

/// The log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of level INFO about loads that `calls` logs.
fn logged(calls: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), calls);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| line.contains("loaded bytes")).map(str::to_owned).collect()
}

#[test]
fn each_load_ends_with_one_line() {
    let model = Model::new(&[100_000; 8]);
    let (_directory, path) = on_disk(&model);
    let absent = path.with_file_name("absent");
    let one = |calls: &dyn Fn()| {
        let mut lines = logged(calls);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.remove(0)
    };
    let has = |line: &str, fields: &[&str]| {
        assert!(fields.iter().all(|field| line.contains(field)), "{line}\n{fields:?}");
    };
    let line = one(&|| drop(Loader::new().load(&path).unwrap()));
    has(&line, &["INFO load:", ": loaded bytes=800000 tensors=8 seconds=0.", "source=\"file\""]);
    has(&line, &["gigabytes_per_second=", "outcome=\"ok\""]);
    let line = one(&|| drop(Loader::new().load(&absent).unwrap_err()));
    has(&line, &["not loaded bytes=0", "outcome=\"not_found\""]);
    let line = one(&|| drop(Loader::new().stream(&path).unwrap().next()));
    has(&line, &["not loaded bytes=100000 tensors=1", "outcome=\"cancelled\""]);
    // All that its caller wanted, who does not ask for the end.
    let line = one(&|| assert_eq!(Loader::new().stream(&path).unwrap().take(8).count(), 8));
    has(&line, &[": loaded bytes=800000", "outcome=\"ok\""]);
    let cancelled = Cancellation::new();
    cancelled.cancel();
    let loader = Loader::new().cancellation(&cancelled);
    has(&one(&|| drop(loader.load(&path).unwrap_err())), &["outcome=\"cancelled\""]);
    let limited = Loader::new().memory_limit(MemoryLimit::Bytes(210_000));
    has(&one(&|| drop(limited.load(&path).unwrap_err())), &["outcome=\"memory_limit\""]);
    // A load that is restarted is one load.
    let line = one(&|| {
        let tensors = limited.by_name(&path).unwrap();
        for name in ["t7", "t0", "t5", "t1", "t6", "t2", "t4", "t3"] {
            tensors.get(name).unwrap();
        }
    });
    has(&line, &[": loaded bytes=800000 tensors=8", "outcome=\"ok\""]);
    let line = one(&|| {
        let mut memory = vec![0; 5000];
        let mut requests = [ReadRequest::new(Location::from(path.as_path()), 100, &mut memory)];
        Loader::new().read_into(&mut requests, |_| ControlFlow::Continue(())).unwrap();
    });
    has(&line, &["INFO read_into:", ": loaded bytes=5000 tensors=1"]);
}

/// A broken connection does not end a load, and the server of a failed one is not called cancelled.
#[test]
fn the_line_of_a_remote_load_names_its_store() {
    let model = Model::small();
    let lines = logged(|| {
        let server = model.serve(once(|request| request.right().cut(100, End::Reset)));
        loader().load(server.url().as_str()).unwrap();
    });
    assert!(lines.len() == 1 && lines[0].contains("source=\"http\" outcome=\"ok\""), "{lines:?}");
}
