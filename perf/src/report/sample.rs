//! Sample records of every kind, to test the report.

use crate::records::*;
use crate::stats::Difference;
use ringload_measure::figures::Figures;
use serde_json::{Value, json};

/// A client and the approximate figures of its runs: GB/s and CPU-seconds per GB.
pub type Made<'a> = (&'a str, Role, f64, f64);

pub const RUNAI: &str = "Run:ai Model Streamer 0.17";
pub const HOSTILE: &str = "<script>alert('x')</script> & \"co\"";

const LOCAL: [Made<'static>; 8] = [
    ("ringload", Role::Own, 2.28, 0.11),
    ("ringload, again", Role::Control, 2.26, 0.112),
    (RUNAI, Role::Peer, 1.05, 0.64),
    ("safetensors 0.8", Role::Peer, 0.82, 0.91),
    ("fastsafetensors", Role::Peer, 1.71, 0.47),
    (HOSTILE, Role::Peer, 1.1, 0.3),
    ("fio io_uring, direct, depth 32", Role::Limit, 2.41, 0.05),
    ("memcpy", Role::Limit, 3.05, 0.33),
];

/// As the harness would write them.
pub fn records() -> Vec<Record> {
    let mut records = vec![session()];
    for (case, title) in [
        ("cold", "8 GiB in 2 files, into host memory, from the disk, cold"),
        ("warm", "8 GiB in 2 files, into host memory, from the page cache"),
    ] {
        records.push(case_record("local files", case, title, None));
        records.extend(runs("local files", case, 8 << 30, &LOCAL));
        records.extend(comparisons("local files", case));
    }
    records.extend(adapter());
    records.push(noise("local files"));
    records.push(Record::Skipped(Skipped {
        scenario: "local files".to_owned(),
        what: "InstantTensor 0.1".to_owned(),
        why: "its wheel needs CUDA, and there is no GPU".to_owned(),
    }));
    records.extend(curve("engines", "engines", &[1.0, 2.0, 3.0, 4.0], |_| 8 << 30));
    let sizes: Vec<f64> = (6..=14).map(|power| f64::from(1 << power)).collect();
    records.extend(curve("file size", "MiB", &sizes, |x| (x as u64) << 20));
    records.push(trace_record("local files, cold: 24 slots of 8 MiB", trace(24, 5000)));
    records.push(trace_record("S3 over loopback: 64 slots", trace(64, 8_000)));
    records.extend(targets());
    records
}

pub fn session() -> Record {
    Record::Session(Session {
        version: "0.1.0".to_owned(),
        commit: Some("981d5401b2c3".to_owned()),
        date: "2026-11-22".to_owned(),
        machine: Machine {
            cpu: "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz".to_owned(),
            cores: 4,
            memory_bytes: 16 << 30,
            kernel: "6.1.0".to_owned(),
            file_system: "ext4 on NVMe".to_owned(),
            gpu: None,
        },
        peers: [(RUNAI, "0.17.0"), ("safetensors", "0.8.0"), ("curl", "8.14.1")]
            .map(|(peer, version)| (peer.to_owned(), version.to_owned()))
            .into(),
        turns: 7,
        command: "cargo run --release -p ringload-perf -- local s3 --turns 7".to_owned(),
    })
}

pub fn case_record(scenario: &str, case: &str, title: &str, point: Option<Point>) -> Record {
    Record::Case(Case {
        scenario: scenario.to_owned(),
        case: case.to_owned(),
        title: title.to_owned(),
        point,
    })
}

/// Seven runs of each client, which differ a little.
pub fn runs(scenario: &str, case: &str, bytes: u64, clients: &[Made<'_>]) -> Vec<Record> {
    let mut runs = Vec::new();
    for turn in 0..7 {
        for (index, (client, role, gigabytes_per_second, cpu)) in clients.iter().enumerate() {
            let wobble = 1.0 + 0.04 * (((turn * 5 + index * 3) % 7) as f64 / 3.0 - 1.0);
            let gigabytes = bytes as f64 / 1e9;
            runs.push(Record::Run(Run {
                scenario: scenario.to_owned(),
                case: case.to_owned(),
                client: (*client).to_owned(),
                role: *role,
                turn,
                figures: Figures {
                    bytes,
                    seconds: (gigabytes / gigabytes_per_second + 0.02) * wobble,
                    cpu_seconds: gigabytes * cpu * wobble,
                    process_seconds: gigabytes / gigabytes_per_second + 0.3,
                    peak_rss_bytes: Some(600 << 20),
                    ..Figures::default()
                },
                server_cpu_seconds: scenario.starts_with("S3").then_some(0.2 * gigabytes),
            }));
        }
    }
    runs
}

fn adapter() -> Vec<Record> {
    let (scenario, case) = ("adapter", "cached");
    let title = "An adapter of 100 MiB from the page cache, from the process's start";
    let mut records = vec![case_record(scenario, case, title, None)];
    for mut record in runs(scenario, case, 100 << 20, &LOCAL[..5]) {
        if let Record::Run(run) = &mut record {
            run.figures.first_tensor_seconds = Some(run.seconds * 0.4 + 0.1);
            run.figures.last_tensor_seconds = Some(run.seconds + 0.1);
        }
        records.push(record);
    }
    records
}

/// A function of `x` with diminishing growth.
fn curve(name: &str, unit: &str, xs: &[f64], bytes: fn(f64) -> u64) -> Vec<Record> {
    let mut records = Vec::new();
    for x in xs {
        let gain = x / (x + 1.0);
        let clients = [
            ("ringload", Role::Own, 2.9 * gain, 0.12 + 0.3 / x),
            (RUNAI, Role::Peer, 1.4 * gain, 0.7),
            ("safetensors 0.8", Role::Peer, 0.82, 0.91),
            ("fio io_uring, direct, depth 32", Role::Limit, 2.41, 0.05),
        ];
        let case = format!("{name} {x}");
        let point = Point { curve: name.to_owned(), unit: unit.to_owned(), x: *x };
        let title = format!("local files, cold, {name} of {x}");
        records.push(case_record("scaling", &case, &title, Some(point)));
        records.extend(runs("scaling", &case, bytes(*x), &clients));
        records.extend(comparisons("scaling", &case));
    }
    records
}

fn comparisons(scenario: &str, case: &str) -> Vec<Record> {
    let seconds = Figure::Seconds;
    [
        (RUNAI, seconds, 0.46, 0.43, 0.49, Difference::Less),
        (RUNAI, Figure::CpuSecondsPerGigabyte, 0.17, 0.15, 0.21, Difference::Less),
        ("safetensors 0.8", seconds, 0.36, 0.35, 0.39, Difference::Less),
        ("ringload, again", seconds, 0.997, 0.95, 1.05, Difference::WithinNoise),
        ("fio io_uring, direct, depth 32", seconds, 1.06, 1.03, 1.08, Difference::More),
    ]
    .map(|(other, figure, ratio, low, high, difference)| {
        Record::Comparison(Comparison {
            scenario: scenario.to_owned(),
            case: case.to_owned(),
            figure,
            own: "ringload".to_owned(),
            other: other.to_owned(),
            ratio,
            low,
            high,
            difference,
        })
    })
    .into()
}

fn noise(scenario: &str) -> Record {
    Record::Noise(Noise {
        scenario: scenario.to_owned(),
        loop_spread: 1.08,
        stolen_share: 0.002,
        others_share: 0.013,
    })
}

pub fn targets() -> Vec<Record> {
    let of = |id: &str, part: &str, sentence: &str, bound, target, figure: Option<f64>| Target {
        id: id.to_owned(),
        part: part.to_owned(),
        sentence: sentence.to_owned(),
        bound,
        target,
        figure,
        low: figure.map(|it| it * 0.97),
        high: figure.map(|it| it * 1.02),
        note: None,
    };
    let cold = "Cold local files: time beside the best of fio's direct reads";
    let cpu = "CPU time per GB from the page cache, beside a plain memcpy";
    let s3 = "S3 over loopback: client CPU time beside Run:ai's";
    let gpu = "Loads onto a GPU, of pinned copies";
    let mut absent = of("gpu.copy", "devices", gpu, Bound::AtLeast, 0.9, None);
    absent.note = Some("there is no NVIDIA GPU in this machine".to_owned());
    let mut missed = of("engine.cpu", "engine", cpu, Bound::AtMost, 1.2, Some(1.41));
    missed.note = Some("the virtual machine's page tables: see the profile".to_owned());
    [
        of("engine.cold.wall", "engine", cold, Bound::AtMost, 1.1, Some(1.058)),
        missed,
        of("objects.cpu", "object stores", s3, Bound::AtMost, 0.5, Some(0.5004)),
        of(
            "objects.wall",
            "object stores",
            "S3 over loopback: GB/s",
            Bound::AtLeast,
            1.5,
            Some(2.2),
        ),
        absent,
    ]
    .map(Record::Target)
    .into()
}

pub fn trace_record(title: &str, trace: Value) -> Record {
    let (scenario, title) = ("local files".to_owned(), title.to_owned());
    Record::Trace(Trace { scenario, title, trace })
}

/// `events` spans of slots that read, are held and copy; two engines; a load.
pub fn trace(slots: usize, events: usize) -> Value {
    let mut all = vec![
        json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": 0, "args": {"name": "engine 0"}}),
        json!({"ph": "X", "pid": 3, "tid": 0, "ts": 100.0, "dur": 9_000.0, "cat": "load", "name": "open"}),
        json!({"ph": "i", "pid": 3, "tid": 0, "ts": 9_100.0, "cat": "load", "name": "opened"}),
        json!({"ph": "i", "pid": 3, "tid": 0, "ts": 13_100.0, "cat": "load", "name": "first tensor"}),
    ];
    let mut clocks = vec![9_200_u64; slots];
    for index in 0..events.div_ceil(3) {
        let slot = index % slots;
        let wobble = (index * 7919 % 13) as u64;
        for (kind, length) in [
            ("reading", 900 + 90 * wobble),
            ("held", if slot % 5 == 3 { 2000 } else { 40 * wobble }),
            ("copying", 300 + 20 * wobble),
        ] {
            all.push(json!({
                "ph": "X", "pid": 2, "tid": slot, "ts": clocks[slot], "dur": length, "cat": kind,
                "name": kind, "args": {"bytes": 8 << 20}
            }));
            clocks[slot] += length + 3 * wobble;
        }
    }
    let end = clocks.iter().copied().max().unwrap_or(0);
    for wait in 0..(end / 9_000) {
        let engine = wait % 2;
        all.push(json!({"ph": "X", "pid": 1, "tid": engine, "ts": wait * 9_000, "dur": 5_000, "cat": "wait", "name": "wait"}));
    }
    all.push(
        json!({"ph": "i", "pid": 3, "tid": 0, "ts": end, "cat": "load", "name": "last tensor"}),
    );
    json!({"traceEvents": all, "otherData": {"version": "0.1.0"}})
}
