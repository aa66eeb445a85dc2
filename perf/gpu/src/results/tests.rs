use super::*;
use crate::record::Recorder;
use ringload_measure::stats::Bound::{AtLeast, AtMost};
use std::cell::RefCell;
use std::rc::Rc;

/// The results of one step that records what `spoil` does.
fn of(spoil: impl FnOnce(&mut Recorder)) -> Results {
    let records = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&records);
    spoil(&mut Recorder::new(3, move |record| kept.borrow_mut().push(record)));
    let mut results = Results::default();
    for record in records.take() {
        results.add("step", record).unwrap();
    }
    results
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_target_is_reached_by_enough_turns_on_its_side() {
    let results = of(|recorder| {
        recorder.add("a", "", &[7.0, 0.8, 0.9, 1.0], (AtLeast, 0.9));
        recorder.add("b", "GB/s", &[7.0, 123.4], None);
    });
    assert!(results.is_good());
    let text = words(&results.markdown(&["step"]));
    assert!(text.contains("| a | >= 0.9 | 0.900 x (0.800 to 1.00) | 3 | pass |"), "{text}");
    assert!(text.contains("| b | 123 GB/s | 1 |"), "{text}");
}

#[test]
fn what_is_missed_wrong_or_left_out_is_not_good() {
    let bad: [fn(&mut Recorder); 8] = [
        |recorder| recorder.add("a", "", &[0.8; 4], (AtLeast, 0.9)),
        |recorder| recorder.add("a", "", &[0.9; 3], (AtLeast, 0.9)),
        |recorder| recorder.add("a", "", &[], (AtLeast, 0.9)),
        |recorder| recorder.add("a", "", &[f64::NAN; 4], (AtMost, 0.9)),
        |recorder| recorder.skip("a"),
        |recorder| recorder.check("a", || anyhow::bail!("wrong")),
        |recorder| {
            let how = Ending::Failed;
            recorder.record(Record::End { how, seconds: 1.0, error: Some("wrong".into()) });
        },
        |recorder| {
            let how = Ending::OverItsLimit;
            recorder.record(Record::End { how, seconds: 1.0, error: None });
        },
    ];
    for (index, spoil) in bad.into_iter().enumerate() {
        assert!(!of(spoil).is_good(), "{index}");
    }
}

/// A run is killed in the middle of a line. The next one must take what is there, and neither lose nor
/// repeat anything.
#[test]
fn a_later_run_goes_on_with_the_file_of_one_that_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gpu.jsonl");
    let begin = || Record::Begin { seconds_at_most: 1.0 };
    let end = |how| Record::End { how, seconds: 1.0, error: None };
    let mut first = Results::open(directory.path()).unwrap();
    for record in [begin(), Record::Note { text: "one".into() }, end(Ending::Done)] {
        first.add("a", record).unwrap();
    }
    first.add("b", begin()).unwrap();
    first.add("b", Record::Skip { why: "of the first run".into() }).unwrap();
    drop(first);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + r#"{"step":"b","kind":"no"#).unwrap();

    let mut second = Results::open(directory.path()).unwrap();
    assert_eq!((second.ending("a"), second.ending("b")), (Some(Ending::Done), None));
    assert!(second.has_begun("b") && !second.has_begun("c") && !second.is_good());
    second.add("b", begin()).unwrap();
    second.add("b", end(Ending::Done)).unwrap();
    assert!(second.is_good(), "{second:?}");
    let third = Results::open(directory.path()).unwrap();
    assert_eq!((third.ending("b"), third.notes().len()), (Some(Ending::Done), 1));
    let text = words(&third.markdown(&["a", "b", "c"]));
    assert!(text.contains("| b | 1.0 | done | | c | | not begun |"), "{text}");
}

#[test]
fn a_figure_that_is_measured_again_keeps_its_better_measurement() {
    let figure = |turns: &[f64]| {
        let turns = turns.to_vec();
        let (name, unit) = ("f".to_owned(), String::new());
        Record::Figure(Figure { name, unit, turns, target: None, enough: 1 })
    };
    let mut results = Results::default();
    for (turns, wanted) in [(&[1.0][..], 1.0), (&[1.0, 3.0], 2.0), (&[9.0], 2.0), (&[4.0; 2], 4.0)]
    {
        results.add("a", figure(turns)).unwrap();
        assert_eq!(results.figures()[0].median(), Some(wanted));
    }
    results.add("b", figure(&[5.0])).unwrap();
    assert_eq!(results.figures().len(), 2);
}
