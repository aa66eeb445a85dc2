//! The timeline of a load, as `--trace` writes it for other programs to draw.
//!
//! Hazards: a slot recorded as free while its bytes are in use, or as in use when it is free (then more
//! memory would be in use than exists); bytes that nobody read; events outside of the load's time, or
//! overlapping in one row; waits while an engine works; a load that is lost because its trace cannot
//! be written, or a file that is lost because there is no load.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::fault_server::{FaultServer, Reply};
use crate::common::model::Model;
use crate::common::stand_in::stand_in;
use crate::common::trace::{ENGINES, SLOTS, Trace};
use crate::common::{Expected, directory, has_direct_io, skip, until, write};
use ringload::timeline::{Period, SlotSpan, Stage};
use ringload::{Loader, MemoryLimit, Order};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Twelve tensors of slightly more than 1 MiB, in two shards.
struct Files {
    directory: TempDir,
    tensors: Vec<Expected>,
}

impl Files {
    fn new() -> Self {
        let directory = directory();
        let tensor = |i: usize| Expected::of_bytes(format!("t{i}"), (1 << 20) + 1000 * i, i as u64);
        let tensors: Vec<_> = (0..12).map(tensor).collect();
        for (name, tensors) in ["a", "b"].iter().zip(tensors.chunks(6)) {
            write(&directory.path().join(format!("{name}.safetensors")), tensors, None);
        }
        Self { directory, tensors }
    }

    fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum()
    }

    fn load(&self, arguments: &[&str]) -> (Trace, Value) {
        self.load_with(ringload(), arguments)
    }

    /// Runs a load with these arguments. Returns its trace, after the checks that apply to all traces,
    /// and its report.
    fn load_with(&self, mut command: Command, arguments: &[&str]) -> (Trace, Value) {
        command.arg("load").arg(self.directory.path()).args(arguments);
        let (trace, report) = traced(command);
        assert!(trace.read().0 >= self.bytes(), "{arguments:?}: {trace:?}");
        assert_eq!(trace.about["bytes"], report["bytes"]);
        (trace, report)
    }
}

/// Runs `command`, which is a load.
fn traced(mut command: Command) -> (Trace, Value) {
    let out = directory();
    let file = out.path().join("trace.json");
    let began = Instant::now();
    let report = run(command.args(["--json", "--trace"]).arg(&file)).json();
    let wall_seconds = began.elapsed().as_secs_f64();
    let trace = Trace::parse(&fs::read_to_string(&file).unwrap());
    trace.check(wall_seconds);
    for key in ["ring_bytes", "memory_limit_bytes", "engines", "backend"] {
        assert_eq!(trace.about[key], report[key], "{key}");
    }
    assert_eq!(trace.about["version"], env!("CARGO_PKG_VERSION"));
    let opened = trace.of("load").into_iter().find(|span| span.name == "open").unwrap();
    let moments = [opened.end, trace.at("first tensor"), trace.at("last tensor")];
    assert!(moments.is_sorted(), "{moments:?}");
    let seconds = trace.about["seconds"].as_f64().unwrap();
    assert!(trace.at("last tensor") as f64 <= seconds * 1e9);
    (trace, report)
}

#[test]
fn what_is_resident_is_held_until_the_end() {
    let files = Files::new();
    for arguments in [&[][..], &["--digest"], &["--read-path", "direct", "--engines", "2"]] {
        let (trace, report) = files.load(arguments);
        assert_eq!(trace.categories(SLOTS), BTreeSet::from(["held", "reading"]));
        assert_eq!(trace.of("held").len(), trace.of("reading").len());
        let last = trace.at("last tensor");
        assert!(trace.of("held").iter().all(|held| held.end >= last), "{arguments:?}: {trace:?}");
        assert!(trace.of("wait").is_empty(), "there is no limit: {trace:?}");
        let reported =
            report["read_bytes"].as_object().unwrap().keys().map(String::as_str).collect();
        let paths = trace.read().1;
        let paths: BTreeSet<_> = paths.iter().flat_map(|paths| paths.split('+')).collect();
        assert_eq!(paths, reported);
        let engines = trace.rows.range((ENGINES, 0)..(SLOTS, 0)).count();
        assert_eq!(report["engines"], engines);
    }
    assert!(files.load(&["--drop"]).0.of("held").iter().all(|held| held.end > held.start));
}

#[test]
fn no_more_is_in_use_than_the_limit_permits() {
    let files = Files::new();
    for limit in ["min", "3MiB", "8MiB"] {
        for more in [&[][..], &["--digest"], &["--engines", "2"], &["--dtype", "f16"]] {
            let (trace, report) = files.load(&[&["--memory-limit", limit], more].concat());
            let (used, ring) = (trace.bytes_in_use(), report["ring_bytes"].as_u64().unwrap());
            assert!(used <= ring, "{used} bytes of a ring of {ring} ({limit}, {more:?})");
            assert!(used >= 1 << 20, "{used} bytes ({limit}, {more:?})");
        }
    }
}

#[test]
fn a_cast_is_recorded_for_both_slots() {
    let directory = directory();
    let halves = Expected::new("w", ringload::Dtype::F16, &[1000, 500], 1);
    write(&directory.path().join("a.safetensors"), &[halves], None);
    let mut command = ringload();
    command.arg("load").arg(directory.path()).args(["--memory-limit", "min", "--dtype", "f32"]);
    let (trace, report) = traced(command);
    assert_eq!(trace.of("reading").len(), 1);
    assert_eq!(trace.of("casting").len(), 2);
    assert_eq!(trace.of("held").len(), 1);
    assert!(trace.bytes_in_use() <= report["ring_bytes"].as_u64().unwrap());
    assert!(trace.bytes_in_use() >= 3_000_000, "{trace:?}");
}

#[test]
fn what_goes_to_a_gpu_is_copied_from_its_slot() {
    let files = Files::new();
    let on_device = |more: &[&str]| {
        let mut command = ringload();
        command.env("LD_LIBRARY_PATH", stand_in());
        files.load_with(command, &[&["--device", "cuda:1"], more].concat())
    };
    for more in [&["--memory-limit", "147456"][..], &["--memory-limit", "4MiB"], &[]] {
        let (trace, report) = on_device(more);
        assert_eq!(trace.categories(SLOTS), BTreeSet::from(["copying", "reading"]));
        assert_eq!(trace.of("copying").len(), trace.of("reading").len());
        assert!(trace.bytes_in_use() <= report["ring_bytes"].as_u64().unwrap(), "{more:?}");
        let steps = trace.of("context");
        assert_eq!(steps.iter().map(|step| &*step.name).collect::<Vec<_>>(), ["context", "pin"]);
        assert!(steps.iter().all(|step| trace.rows[&step.row] == "cuda:1"));
    }
    let (trace, _) = on_device(&["--verify"]);
    assert_eq!(trace.categories(SLOTS), BTreeSet::from(["checking", "copying", "reading"]));
    let (trace, _) = on_device(&["--device-map", "t[0-5]=cpu", "--memory-limit", "8MiB"]);
    assert_eq!(trace.categories(SLOTS), BTreeSet::from(["copying", "held", "reading"]));
}

#[test]
fn loads_without_slots_tell_what_they_read() {
    let files = Files::new();
    let (trace, _) = files.load(&["--read-path", "mapped"]);
    assert_eq!(trace.categories(SLOTS), BTreeSet::from(["reading"]));
    assert_eq!(trace.read().1, BTreeSet::from(["mapped"]));
    if !has_direct_io(files.directory.path()) {
        return skip("no direct I/O here");
    }
    let mut command = ringload();
    command.env("LD_LIBRARY_PATH", stand_in()).env("CUDA_STAND_IN_GDS", "on");
    let (trace, _) = files.load_with(command, &["--device", "cuda", "--read-path", "gds"]);
    assert_eq!(trace.categories(SLOTS), BTreeSet::from(["reading"]));
    assert_eq!(trace.read().1, BTreeSet::from(["gds"]));
}

#[test]
fn the_network_the_cache_and_retries_are_recorded() {
    let (model, cache) = (Model::new(&[1_000_000; 9]), directory());
    let server = FaultServer::start(model.file.clone(), |number, request| match number {
        2 => Reply::new(503),
        _ => request.right(),
    });
    let load = || {
        let mut command = ringload();
        command.args(["load", &server.url(), "--memory-limit", "4MiB"]);
        command.env("RINGLOAD_CACHE_DIR", cache.path());
        traced(command)
    };
    let (trace, report) = load();
    assert!(trace.read().0 >= 9_000_000);
    // The header's page may be in the cache already.
    assert!(trace.read().1.iter().all(|paths| paths.split('+').any(|path| path == "http")));
    assert!(trace.bytes_in_use() <= report["ring_bytes"].as_u64().unwrap());
    let [(_, why)] = &trace.events["retry"][..] else { panic!("{trace:?}") };
    assert_eq!(why, "throttled");
    // Bytes that the cache left out under the limit come from the server again, here from `fetch`.
    let mut fetch = ringload();
    run(fetch.args(["fetch", &server.url()]).env("RINGLOAD_CACHE_DIR", cache.path()))
        .quiet_success();
    let (trace, report) = load();
    let paths = trace.read().1;
    let from_cache = paths.iter().any(|paths| paths.split('+').any(|path| path == "cache"));
    assert_eq!(from_cache, report["cached_bytes"].as_u64().unwrap() > 0, "{paths:?}");
    assert!(from_cache, "{report:#}");
}

#[test]
fn a_downgrade_is_recorded_with_its_reason() {
    let files = Files::new();
    let (trace, _) = files.load(&["--read-path", "gds", "--drop"]);
    let [(_, why)] = &trace.events["downgrade"][..] else { panic!("{trace:?}") };
    assert!(why.starts_with("gds -> ring: no tensor goes to a GPU"), "{why}");
}

#[test]
fn an_engine_waits_while_the_caller_holds_the_memory() {
    const PAUSE: Duration = Duration::from_millis(30);
    // Each tensor fits where the one before it was.
    let tensor = |i: usize| Expected::of_bytes(format!("t{i:02}"), (1 << 20) - 8192 * i, i as u64);
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write(&path, &(0..12).map(tensor).collect::<Vec<_>>(), None);
    let limit = MemoryLimit::Bytes(5 << 19);
    let loader = Loader::new().engines(1).order(Order::File).memory_limit(limit);
    let mut stream = loader.clone().timeline(true).stream(&path).unwrap();
    for count in 1..=12 {
        let tensor = stream.next().unwrap().unwrap();
        until("the next tensor is loaded", || {
            let slots = stream.timeline().unwrap().slots;
            let is_loaded = |slot: &SlotSpan| slot.stages.iter().any(|(s, _)| *s == Stage::Held);
            slots.iter().filter(|slot| is_loaded(slot)).count() > count.min(11)
        });
        sleep(PAUSE);
        drop(tensor);
    }
    assert!(stream.next().is_none());
    let timeline = stream.timeline().unwrap();
    let took = |period: Period| period.end - period.start;
    // Two slots fit: while one is held, the other is filled, and then the engine waits.
    let waited: Duration = timeline.waits.iter().map(|wait| took(wait.period)).sum();
    assert!(waited >= 5 * PAUSE, "{waited:?}: {timeline:?}");
    assert!(timeline.waits.iter().all(|wait| wait.engine == 0));
    assert_eq!(timeline.slots.len(), 12);
    for slot in &timeline.slots {
        let [(Stage::Reading, _), (Stage::Held, held)] = slot.stages[..] else {
            panic!("{slot:?}")
        };
        assert!(took(held) >= PAUSE && held.end <= timeline.end, "{slot:?}");
    }
    // Nothing is recorded unless it is requested.
    assert!(loader.stream(&path).unwrap().timeline().is_none());
}

#[test]
fn what_is_printed_is_the_same_with_a_trace() {
    let files = Files::new();
    let file = files.directory.path().join("trace.json");
    let mut command = ringload();
    command.args(["load", "--digest", "--trace"]).arg(&file).arg(files.directory.path());
    fs::write(&file, "something that was there and is longer".repeat(10_000)).unwrap();
    assert_eq!(run(&mut command).quiet_success(), digest_lines(&files.tensors));
    Trace::parse(&fs::read_to_string(&file).unwrap());
    let mut command = ringload();
    command.args(["load", "--trace", "/dev/null"]).arg(files.directory.path());
    assert!(run(&mut command).quiet_success().starts_with("12 tensors"));
}

#[test]
fn a_file_that_cannot_be_written_is_reported_before_the_load() {
    let files = Files::new();
    let folder = files.directory.path();
    let server = FaultServer::start(Vec::new(), |_, _| panic!("the load has begun"));
    for file in [folder.join("none/trace.json"), folder.to_owned()] {
        let mut command = ringload();
        let error = run(command.args(["load", &server.url(), "--trace"]).arg(&file)).failure();
        let sentence = format!("error: cannot write the trace to {}: ", file.display());
        assert!(error.starts_with(&sentence) && error.contains("\ncaused by: "), "{error}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_trace_that_cannot_be_finished_does_not_lose_the_report() {
    let files = Files::new();
    let mut command = ringload();
    command.args(["load", "--trace", "/dev/full"]).arg(files.directory.path());
    let finished = run(&mut command);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert!(finished.stdout.starts_with("12 tensors"), "{finished:#?}");
    assert!(finished.stderr.starts_with("error: cannot write the trace to /dev/full"));
}

#[test]
fn a_load_that_fails_leaves_its_trace_and_one_that_never_was_none() {
    let directory = directory();
    let file = directory.path().join("trace.json");
    let model = Model::new(&[1_000_000; 9]);
    let server = FaultServer::start(model.file, |number, request| match number {
        0..3 => request.right(),
        _ => Reply::new(404),
    });
    let load = |location: &str| {
        let mut command = ringload();
        command.args(["load", location, "--memory-limit", "4MiB", "--trace"]).arg(&file);
        run(&mut command).failure()
    };
    load("missing.safetensors");
    assert!(!file.exists());
    let began = Instant::now();
    load(&server.url());
    let trace = Trace::parse(&fs::read_to_string(&file).unwrap());
    trace.check(began.elapsed().as_secs_f64());
    assert!(!trace.of("reading").is_empty(), "{trace:?}");
    assert!(!trace.events.contains_key("last tensor"));
    // The file that was there before stays.
    load("missing.safetensors");
    assert!(file.exists());
}
