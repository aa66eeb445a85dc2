//! Tests of constants from records and of predictions, on simulated machines.

use super::check::check;
use super::constants::Constants;
use super::measured::{Shape, from_records};
use super::scenario::{Destination, Source};
use super::stages::Stage;
use super::tests::{MIB, assert_close};
use crate::records::{Case, Machine, Point, Record, Role, Run, Session};
use std::collections::BTreeMap;

/// Records of a simulated machine that matches the model.
struct Book(Vec<Record>);

impl Book {
    fn new(cores: usize) -> Self {
        let machine = Machine {
            cpu: String::new(),
            cores,
            memory_bytes: 0,
            kernel: String::new(),
            file_system: String::new(),
            gpu: None,
        };
        Self(vec![Record::Session(Session {
            version: String::new(),
            commit: None,
            date: String::new(),
            machine,
            peers: BTreeMap::new(),
            turns: 5,
            command: String::new(),
        })])
    }

    fn case(&mut self, scenario: &str, case: &str, point: Option<(&str, &str, f64)>) {
        self.0.push(Record::Case(Case {
            scenario: scenario.into(),
            case: case.into(),
            title: String::new(),
            point: point.map(|(curve, unit, x)| Point {
                curve: curve.into(),
                unit: unit.into(),
                x,
            }),
        }));
    }

    /// Three runs of 10 GB.
    fn runs(&mut self, (scenario, case, client): (&str, &str, &str), role: Role, run: (f64, f64)) {
        for turn in 0..3 {
            self.0.push(Record::Run(Run {
                scenario: scenario.into(),
                case: case.into(),
                client: client.into(),
                role,
                turn,
                bytes: 10_000_000_000,
                seconds: run.0 * (0.9 + 0.1 * turn as f64),
                cpu_seconds: run.1,
                process_seconds: run.0 * (0.9 + 0.1 * turn as f64) + 0.25,
                first_tensor_seconds: None,
                last_tensor_seconds: None,
                peak_rss_bytes: None,
                server_cpu_seconds: (scenario == "http").then_some(2.0),
            }));
        }
    }
}

fn book() -> Book {
    let mut book = Book::new(4);
    book.case("local", "cold", None);
    book.runs(("local", "cold", "fio"), Role::Limit, (2.5, 0.1));
    book.runs(("local", "cold", "uring"), Role::Limit, (2.0, 0.1));
    book.runs(("local", "cold", "uring into kept memory"), Role::Limit, (2.05, 3.0));
    book.runs(("local", "cold", "ringload"), Role::Own, (2.1, 0.3));
    book.runs(("local", "cold", "a peer"), Role::Peer, (9.0, 9.0));
    book.case("scaling", "ring 64 MiB", Some(("ring size", "MiB", 64.0)));
    book.runs(("scaling", "ring 64 MiB", "ringload"), Role::Own, (1.9, 0.3));
    book.case("http", "one", None);
    book.runs(("http", "one", "ringload"), Role::Own, (4.0, 2.0));
    book.case("http", "connections 1", Some(("connections", "", 1.0)));
    book.runs(("http", "connections 1", "ringload"), Role::Own, (4.1, 2.0));
    book
}

#[test]
fn constants_are_taken_from_records() {
    let constants = from_records(&book().0);
    assert_eq!(constants.hardware.cores, 4.0);
    assert_close(constants.hardware.disk_gb_per_second, 5.0, 1e-9);
    assert!(constants.hardware.fresh_memory_overlaps_reads);
    // 0.3 CPU-seconds for 10 GB, of which 119 reads a GB take 42 us each.
    assert_close(constants.costs.direct_cpu_seconds_per_gb, 0.03 - 0.005, 0.01);
    assert_close(constants.costs.http_cpu_seconds_per_gb, 0.2, 1e-9);
    assert_close(constants.costs.serve_cpu_seconds_per_gb, 0.2, 1e-9);
    assert_close(constants.costs.process_start_seconds, 0.25, 1e-9);
    assert_eq!(from_records(&[]), Constants::default());
}

#[test]
fn cases_are_predicted_from_the_others() {
    let book = book();
    let all = check(&book.0, &Constants::default());
    let of = |case: &str| all.iter().find(|checked| checked.case == case).unwrap();
    assert_eq!(all.len(), 4, "{all:?}");
    assert_close(of("cold").predicted_seconds, 2.0, 0.02);
    assert_eq!(of("cold").bottleneck, Stage::Disk);
    assert_close(of("ring 64 MiB").predicted_seconds, 2.0, 0.02);
    // The other http case kept one core busy: 2 s of the client and 2 s of the server in 4 s.
    assert_close(of("one").predicted_seconds, 4.0 * 4.1 / 4.0, 0.05);
    assert_eq!(of("one").bottleneck, Stage::Engines);
    assert_close(of("cold").relative_error(), 2.0 / 2.1 - 1.0, 0.2);
}

#[test]
fn no_case_predicts_itself() {
    let mut book = book();
    let before = check(&book.0, &Constants::default());
    for record in &mut book.0 {
        if let Record::Run(run) = record
            && run.role == Role::Own
            && run.case == "cold"
        {
            run.seconds *= 3.0;
            run.cpu_seconds *= 100.0;
        }
    }
    let after = check(&book.0, &Constants::default());
    assert_eq!(before[0].case, "cold");
    assert_eq!(before[0].predicted_seconds, after[0].predicted_seconds);
    assert_eq!(before[0].measured_seconds * 3.0, after[0].measured_seconds);
}

#[test]
fn loads_are_told_from_their_words() {
    let shape = |scenario: &str, case: &str, client: &str| {
        let mut book = Book::new(2);
        book.runs((scenario, case, client), Role::Own, (1.0, 1.0));
        let Record::Run(run) = &book.0[1] else { panic!("a run") };
        Shape::of(run, None)
    };
    let cold = shape("local", "cold", "ringload 256MiB").unwrap();
    assert_eq!((cold.source, cold.ring_bytes), (Source::Disk, Some(256.0 * MIB)));
    assert_eq!(cold.destination, Destination::Stream);
    let warm = shape("local", "warm, resident", "ringload").unwrap();
    assert_eq!((warm.source, warm.destination), (Source::PageCache, Destination::Resident));
    assert_eq!(shape("https", "plain", "ringload").unwrap().source, Source::LoopbackTls);
    assert!(shape("verify", "s3", "ringload --verify").unwrap().verify);
    assert_eq!(shape("local", "warm", "ringload mapped"), None);
    assert_eq!(shape("cache", "first", "ringload"), None);
}
