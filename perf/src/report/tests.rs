//! Tests of the report on sample records.

use super::sample::{self, HOSTILE, RUNAI};
use super::*;
use crate::records::{Bound, Role, Run, Target};
use ringload_measure::figures::Figures;
use std::io::Write as _;

fn terminal_text(records: &[Record]) -> String {
    let mut out = Vec::new();
    terminal(records, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The pictures of a page, each checked to be valid XML without non-finite figures.
fn pictures(page: &str) -> Vec<&str> {
    let pictures: Vec<&str> = page
        .split("<svg")
        .skip(1)
        .map(|rest| {
            let start = rest.as_ptr() as usize - page.as_ptr() as usize - "<svg".len();
            let end = start + page[start..].find("</svg>").unwrap() + "</svg>".len();
            &page[start..end]
        })
        .collect();
    for picture in &pictures {
        let mut reader = quick_xml::Reader::from_str(picture);
        reader.config_mut().check_end_names = true;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Start(element)
                | quick_xml::events::Event::Empty(element) => {
                    assert!(element.attributes().all(|it| it.is_ok()), "{element:?}");
                }
                _ => {}
            }
        }
    }
    for none in ["NaN", "inf", "-0\""] {
        assert!(pictures.iter().all(|picture| !picture.contains(none)), "{none}");
    }
    pictures
}

fn run(client: &str, role: Role, seconds: f64) -> Record {
    Record::Run(Run {
        scenario: "s".to_owned(),
        case: "c".to_owned(),
        client: client.to_owned(),
        role,
        turn: 0,
        figures: Figures {
            bytes: 1 << 30,
            seconds,
            process_seconds: seconds,
            ..Figures::default()
        },
        server_cpu_seconds: None,
    })
}

/// Writes the sample report to `target/tmp/report.html` of the workspace, for inspection.
#[test]
fn the_sample_shows_everything() {
    let records = sample::records();
    let page = html(&records);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("report.html"), &page).unwrap();
    std::fs::write(folder.join("report.txt"), terminal_text(&records)).unwrap();

    // Two cases of two plots, one of three; two curves of two and three; two timelines; legends.
    assert_eq!(pictures(&page).len(), 2 * 2 + 3 + 2 + 3 + 2 + 2 * 4);
    for client in ["ringload, again", RUNAI, "safetensors 0.8", "memcpy"] {
        assert!(page.contains(&format!("</span>{client}")), "{client}");
    }
    assert!(page.contains("981d5401b2c3") && page.contains("--turns 7"));
    assert!(page.contains("ringload: 0.46 x Run:ai Model Streamer 0.17&#39;s time (0.43 to 0.49)"));
    assert!(page.contains(
        "no difference from ringload, again that stands out of the noise (0.997 x, 0.95 to 1.05)"
    ));
    assert!(page.contains("its wheel needs CUDA, and there is no GPU"));
    assert!(page.contains("took up to 1.08 x its shortest time; the host gave 0.2 %"));
    assert!(page.contains("16 more slots are folded"));
    assert!(page.contains("in proportion to the work"));
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
}

#[test]
fn names_cannot_be_markup() {
    let page = html(&sample::records());
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;co&quot;"));
    let text = terminal_text(&[run("\u{1b}[2Jred\n", Role::Peer, 1.0)]);
    assert!(text.contains(" [2Jred") && !text.contains('\u{1b}'), "{text:?}");
    assert!(terminal_text(&sample::records()).contains(HOSTILE));
    assert_eq!(text::escaped("a\u{1}b\u{ffff}"), "a\u{fffd}b\u{fffd}");
}

#[test]
fn targets_are_reached_missed_or_not_measured() {
    let targets = sample::targets();
    let (page, text) = (html(&targets), terminal_text(&targets));
    let count = "5 targets: 2 reached, 2 missed, 1 not measured; 1 so close";
    for out in [&page, &text] {
        assert!(out.contains(count), "{out}");
        assert!(out.contains("there is no NVIDIA GPU in this machine"));
        // Three digits would say that it is on the target.
        assert!(out.contains("0.5004") && out.contains("at most 0.5"));
    }
    assert_eq!(page.matches("FAIL</span>").count(), 2);
    assert_eq!(page.matches("pass</span>").count(), 2);
    assert_eq!(page.matches(">not measured</span>").count(), 1);
    assert_eq!(page.matches(">close</span>").count(), 1);
    assert_eq!(text.matches("FAIL").count(), 2);
    assert!(text.contains("FAIL, close"));
}

#[test]
fn a_figure_that_is_none_is_a_dash() {
    let target = Target {
        id: "x".to_owned(),
        part: "p".to_owned(),
        sentence: "s".to_owned(),
        bound: Bound::AtMost,
        target: 1.0,
        figure: Some(f64::NAN),
        low: Some(f64::NEG_INFINITY),
        high: Some(f64::INFINITY),
        note: None,
    };
    let mut records = vec![Record::Target(target)];
    for (client, seconds) in [("a", f64::NAN), ("b", f64::INFINITY), ("c", 0.0), ("d", -1.0)] {
        records.push(run(client, Role::Own, seconds));
    }
    for out in [html(&records), terminal_text(&records)] {
        pictures(&out);
        assert!(!out.contains("NaN") && !out.contains("inf ") && !out.contains(">inf"), "{out}");
        assert!(!out.contains("-1.00"), "no time is less than none");
        assert!(out.contains("FAIL"), "not a number does not reach a target");
    }
}

#[test]
fn little_is_enough() {
    assert!(html(&[]).contains("There are no records"));
    assert_eq!(terminal_text(&[]), "");
    let one = [run("ringload", Role::Own, 2.0)];
    assert_eq!(pictures(&html(&one)).len(), 2);
    assert!(terminal_text(&one).contains("0.537"));
    for seconds in [0.0, 1e-300, 1e300, f64::MIN_POSITIVE] {
        pictures(&html(&[run("a", Role::Limit, seconds), run("b", Role::Own, 1.0)]));
    }
    let empty = [sample::case_record("s", "c", "A case without runs", None)];
    assert!(html(&empty).contains("Nothing was measured"));
}

#[test]
fn odd_traces_are_drawn_or_said_to_be_empty() {
    let of = |trace| html(&[sample::trace_record("t", trace)]);
    for empty in [
        serde_json::json!(null),
        serde_json::json!({"traceEvents": []}),
        serde_json::json!({"traceEvents": [{"ph": "X"}, 7, {"ph": "M", "name": "thread_name"}]}),
        serde_json::json!({"traceEvents": [{"ph": "X", "pid": 9, "ts": 1, "dur": 5}]}),
    ] {
        assert!(of(empty).contains("This timeline has no events"));
    }
    let slot = |ts: f64, dur: f64| serde_json::json!({"ph": "X", "pid": 2, "tid": 0, "ts": ts, "dur": dur, "cat": "held"});
    for (ts, dur) in [(0.0, 0.0), (5.0, -3.0), (1e15, 1e300), (-7.0, 1.0)] {
        let page = of(serde_json::json!({"traceEvents": [slot(ts, dur), slot(0.0, 1.0)]}));
        assert!(pictures(&page)[0].contains("span held"), "{ts} {dur}");
    }
}

#[test]
fn a_long_trace_is_a_small_picture() {
    for (events, most) in [(5_000, 150_000), (60_000, 400_000)] {
        let page = html(&[sample::trace_record("t", sample::trace(24, events))]);
        let picture = pictures(&page)[0];
        assert!(picture.len() < most, "{events}: {}", picture.len());
        assert!(picture.contains("first tensor") && picture.contains("slot 23"));
    }
}

#[test]
fn shares_of_a_timeline_are_those_of_its_spans() {
    let slot = |tid: u64, ts: u64, dur: u64, cat: &str| serde_json::json!({"ph": "X", "pid": 2, "tid": tid, "ts": ts, "dur": dur, "cat": cat});
    let trace = serde_json::json!({"traceEvents": [
        slot(0, 1000, 500, "reading"), slot(0, 1500, 500, "copying"), slot(1, 1000, 250, "held"),
    ]});
    let timeline = trace::Timeline::of(&trace).unwrap();
    assert_eq!(timeline.milliseconds, 1.0);
    let shares = [trace::Kind::Reading, trace::Kind::Copying, trace::Kind::Held]
        .map(|kind| timeline.slots_share(kind));
    assert_eq!(shares, [0.25, 0.25, 0.125]);
    // Half of the first lane is read, from its very start, then it is copied.
    let picture = timeline::draw(&timeline, "t").unwrap();
    let stroke = |class: &str| {
        let path = picture.split(class).nth(1).unwrap().split(" d=\"").nth(1).unwrap();
        let (start, length) = path[1..path.find('"').unwrap()].split_once(" 0h").unwrap();
        (start.parse::<i64>().unwrap(), length.parse::<i64>().unwrap())
    };
    let (reading, copying) = (stroke("span reading"), stroke("span copying"));
    assert_eq!((reading.0, copying.0), (0, reading.1));
    assert!((reading.1 - copying.1).abs() <= 1 && reading.1 > 500, "{reading:?} {copying:?}");
}

#[test]
fn a_folded_lane_shows_what_most_of_its_lanes_did() {
    // 48 lanes that are drawn, and four more: all read first, then one of them goes on.
    let span = |slot: u64, end: u64| serde_json::json!({"ph": "X", "pid": 2, "tid": slot, "ts": 0, "dur": end, "cat": "reading"});
    let mut spans: Vec<_> = (0..52).map(|slot| span(slot, 1000)).collect();
    spans[51] = span(51, 2000);
    let trace = serde_json::json!({ "traceEvents": spans });
    let picture = timeline::draw(&trace::Timeline::of(&trace).unwrap(), "t").unwrap();
    let strokes: Vec<&str> = picture.split(" d=\"").skip(1).collect();
    assert_eq!(strokes.len(), 49);
    let length = |path: &str| {
        let path = &path[..path.find('"').unwrap()];
        path.split('h').nth(1).unwrap().parse::<i64>().unwrap()
    };
    // The last bin is not a whole one, so most of them do not fill it.
    let (one, folded, longer) = (length(strokes[0]), length(strokes[48]), 2 * length(strokes[0]));
    assert!((one - folded).abs() <= 1, "only one of four goes on to {longer}: {folded}");
    assert!(picture.contains("4 more slots"));
}

#[test]
fn a_file_of_records_is_rendered_beside_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    for record in sample::records() {
        writeln!(file, "{}\n", serde_json::to_string(&record).unwrap()).unwrap();
    }
    let page = render(&path).unwrap();
    assert_eq!(page, folder.path().join("run.html"));
    let whole = std::fs::read_to_string(&page).unwrap();
    assert_eq!(whole, html(&sample::records()));
    assert!(render(&page).unwrap_err().to_string().contains("FILE.jsonl"));

    writeln!(file, "{{\"record\": \"run\"}}").unwrap();
    let error = format!("{:#}", render(&path).unwrap_err());
    assert!(error.contains("line") && error.contains("is not a record"), "{error}");
    assert!(read(&folder.path().join("absent")).is_err());
}
