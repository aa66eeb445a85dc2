//! Tests of the report, on the records of perf/results and on odd records.

use super::timeline::Timeline;
use super::*;
use crate::records::Record;
use serde_json::{Value, json};

const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/2026-11-22-2-cores.jsonl");

fn page(records: &[Record]) -> String {
    html(records).unwrap()
}

/// The pictures of a page, each checked to be valid XML without figures that are none.
fn pictures(page: &str) -> Vec<String> {
    let pictures = page.split("<svg").skip(1).map(|rest| rest.split_once("</svg>").unwrap().0);
    let pictures: Vec<String> = pictures.map(|it| format!("<svg{it}</svg>")).collect();
    for picture in &pictures {
        let mut reader = quick_xml::Reader::from_str(picture);
        while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
    pictures
}

fn run(client: &str, role: &str, seconds: f64) -> Record {
    let run = json!({"record": "run", "scenario": "s", "case": "c", "client": client, "role": role,
        "turn": 0, "bytes": 1 << 30, "seconds": 0.0, "cpu_seconds": 0.0, "process_seconds": 1.0});
    let Record::Run(mut run) = serde_json::from_value(run).unwrap() else { panic!() };
    run.figures.seconds = seconds;
    Record::Run(run)
}

fn target(figure: Option<f64>, note: &str) -> Record {
    let target = json!({"record": "target", "id": "x", "part": "p", "sentence": "s", "note": note,
        "bound": "at_most", "target": 0.5, "low": 0.4, "high": 0.6});
    let Record::Target(target) = serde_json::from_value(target).unwrap() else { panic!() };
    Record::Target(crate::records::Target { figure, ..target })
}

fn trace(events: Value) -> Record {
    Record::Trace(crate::records::Trace {
        scenario: "s".to_owned(),
        title: "t".to_owned(),
        trace: json!({ "traceEvents": events }),
    })
}

fn span(slot: usize, start: f64, length: f64, kind: &str) -> Value {
    json!({"ph": "X", "pid": 2, "tid": slot, "ts": start, "dur": length, "cat": kind})
}

#[test]
fn the_page_in_results_is_that_of_its_records() {
    let page = page(&read(Path::new(RECORDS)).unwrap());
    let kept = std::fs::read_to_string(Path::new(RECORDS).with_extension("html")).unwrap();
    assert!(kept == page, "run cargo run -p ringload-perf -- render {RECORDS}");
    assert_eq!(pictures(&page).len(), 78);
    for text in [
        "f0ed62d",
        "cargo run --release -p ringload-perf",
        "</span>ringload, again",
        "ringload: 0.848 x Run:ai&#x27;s time (0.775 to 0.898)",
        "time not different from io_uring 8 MiB x 64&#x27;s beyond the noise (1.02 x, 0.892 to",
        "Found no NVIDIA driver on your system",
        "took up to 1.38 x its shortest time; the host gave 0.3",
        "first tensor at 121 ms",
        "in proportion to the work",
        "36 targets: 26 reached, 5 missed, 5 not measured",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for remote in ["src=", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(remote), "{remote}");
    }
}

#[test]
fn names_cannot_be_markup() {
    let records = [run("<script>alert('x')</script> & \"co\"", "peer", 1.0)];
    assert!(!page(&records).contains("<script"));
    assert!(page(&records).contains("</span>&lt;script&gt;alert(&#x27;x&#x27;)&lt;"));
    assert!(terminal(&records).unwrap().contains("<script>alert('x')</script> & \"co\""));
    let text = terminal(&[run("\u{1b}[2Jred\n", "peer", 1.0)]).unwrap();
    assert!(text.contains("\u{fffd}[2Jred\u{fffd}"), "{text:?}");
}

#[test]
fn targets_are_reached_missed_or_not_measured() {
    let figures = [(Some(0.45), ""), (Some(0.5004), "a reason"), (None, "no GPU")];
    let records = figures.map(|(figure, note)| target(figure, note));
    let (page, text) = (page(&records), terminal(&records).unwrap());
    for out in [&page, &text] {
        assert!(
            out.contains("3 targets: 1 reached, 1 missed, 1 not measured; 3 so close"),
            "{out}"
        );
        // Three digits would say that it is on the target.
        assert!(out.contains("0.5004") && out.contains("at most 0.5"));
        assert!(out.contains("a reason") && out.contains("no GPU"));
    }
    for badge in ["FAIL</span>", "pass</span>", ">not measured</span>"] {
        assert_eq!(page.matches(badge).count(), 1, "{badge}");
    }
    assert!(text.contains("FAIL, close"));
}

#[test]
fn a_figure_that_is_none_is_a_dash() {
    let mut records = vec![target(Some(f64::NAN), "")];
    for (client, seconds) in [("a", f64::NAN), ("b", f64::INFINITY), ("c", 0.0), ("d", -1.0)] {
        records.push(run(client, "own", seconds));
    }
    pictures(&page(&records));
    for out in [page(&records), terminal(&records).unwrap()] {
        assert!(!out.contains("NaN") && !out.contains("inf ") && !out.contains(">inf"), "{out}");
        assert!(!out.contains("-1.00"), "no time is less than none");
        assert!(out.contains("FAIL"), "not a number does not reach a target");
    }
}

#[test]
fn little_is_enough() {
    assert!(page(&[]).contains("There are no records"));
    assert_eq!(terminal(&[]).unwrap(), "");
    let one = [run("ringload", "own", 2.0)];
    assert_eq!(pictures(&page(&one)).len(), 2);
    assert!(terminal(&one).unwrap().contains("0.537"));
    for seconds in [0.0, 1e-300, 1e300, f64::MIN_POSITIVE] {
        pictures(&page(&[run("a", "limit", seconds), run("b", "own", 1.0)]));
    }
    let empty = json!({"record": "case", "scenario": "s", "case": "c", "title": "without runs"});
    assert!(page(&[serde_json::from_value(empty).unwrap()]).contains("Nothing was measured"));
}

#[test]
fn odd_traces_are_drawn_or_said_to_be_empty() {
    for empty in [
        json!(null),
        json!([]),
        json!([{"ph": "X"}, 7, {"ph": "M", "name": "thread_name"}]),
        json!([{"ph": "X", "pid": 9, "ts": 1, "dur": 5}]),
    ] {
        assert!(page(&[trace(empty)]).contains("This timeline has no events"));
    }
    for (ts, dur) in [(0.0, 0.0), (5.0, -3.0), (1e15, 1e300), (-7.0, 1.0)] {
        let page = page(&[trace(json!([span(0, ts, dur, "held"), span(0, 0.0, 1.0, "held")]))]);
        assert!(pictures(&page)[0].contains("#B65C9C"), "{ts} {dur}");
    }
}

#[test]
fn a_long_trace_of_many_slots_is_a_small_picture() {
    let kinds = ["reading", "held", "copying"];
    for (events, slots, most_bytes) in
        [(5_000, 24, 330_000), (60_000, 24, 400_000), (60_000, 96, 450_000)]
    {
        let at = |event| (event / slots) as f64 * 9.0;
        let spans = (0..events).map(|it| span(it % slots, at(it), 7.0, kinds[it / slots % 3]));
        let page = page(&[trace(spans.collect())]);
        let picture = &pictures(&page)[0];
        assert!(picture.len() < most_bytes, "{events} {slots}: {}", picture.len());
        assert!(page.contains(&format!("of the time of {slots} slots")));
        assert!(picture.contains(&format!("slot {}\n", slots - 1)));
    }
}

#[test]
fn shares_of_a_timeline_are_those_of_its_spans() {
    let first = [span(0, 1000.0, 500.0, "reading"), span(0, 1500.0, 500.0, "copying")];
    let trace = json!([first[0], first[1], span(1, 1000.0, 250.0, "held")]);
    let timeline = Timeline::of(&trace).unwrap();
    assert_eq!(timeline.milliseconds, 1.0);
    assert_eq!([0, 1, 2].map(|kind| timeline.slots_share(kind)), [0.25, 0.25, 0.125]);
    // Half of the first lane is read, from its very start, then it is copied.
    let picture = timeline.draw("t").unwrap();
    let edges = |colour: &str| {
        let line = picture.lines().find(|it| it.contains(colour)).unwrap();
        let of = |name: &str| line.split(name).nth(1)?.split('"').nth(1)?.parse::<i64>().ok();
        (of(" x=").unwrap(), of(" width=").unwrap())
    };
    let (reading, copying) = (edges("#0B5FD6"), edges("#E59A1C"));
    assert!((copying.0 - reading.0 - reading.1).abs() <= 1, "{reading:?} {copying:?}");
    assert!((reading.1 - copying.1).abs() <= 1 && reading.1 > 400, "{reading:?} {copying:?}");
}

#[test]
fn a_file_of_records_is_rendered_beside_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let line = serde_json::to_string(&run("a", "own", 1.0)).unwrap();
    std::fs::write(&path, format!("{line}\n\n")).unwrap();
    let written = render(&path).unwrap();
    assert_eq!(written, folder.path().join("run.html"));
    assert_eq!(std::fs::read_to_string(&written).unwrap(), page(&[run("a", "own", 1.0)]));
    assert!(render(&written).unwrap_err().to_string().contains("FILE.jsonl"));
    std::fs::write(&path, "{\"record\": \"run\"}").unwrap();
    let error = format!("{:#}", render(&path).unwrap_err());
    assert!(error.contains("line 1") && error.contains("is not a record"), "{error}");
    assert!(read(&folder.path().join("absent")).is_err());
}
