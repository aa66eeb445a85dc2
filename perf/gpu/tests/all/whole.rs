//! All steps of the program itself, in one run.

use super::pack::*;
use serde_json::Value;

#[test]
fn what_is_packed_checks_and_measures() {
    let manifest = std::fs::read_to_string(plain_pack().join("MANIFEST")).unwrap();
    assert!(
        manifest.contains("version: ringload ") && manifest.contains("glibc: 2."),
        "{manifest}"
    );
    for named in ["file: ringload-gpu,", "file: steps/peers.py,", "missing: instanttensor 0."] {
        assert!(manifest.contains(named), "{named}: {manifest}");
    }

    let mut run = Run::new(plain_pack(), &OWN);
    let ran = run.results();
    assert_is_whole(&ran);
    let out = run.directory.path().join("out");
    assert_eq!(std::fs::read_to_string(out.join("gpu.md")).unwrap(), ran.table);
    assert!(has_row(&ran.table, &["machine", "no GPU"]), "{}", ran.table);
    // Whether targets are reached says nothing here, but the status has to say the same.
    assert_eq!(ran.status.success(), !ran.table.contains("FAIL"), "{}\n{}", ran.table, ran.told);
    assert!(is_empty(&run.directory.path().join("work")), "files stay behind");
}

#[track_caller]
fn assert_is_whole(ran: &Results) {
    let (report, told) = (&ran.json, &ran.told);
    for step in OWN {
        assert_eq!(ran.ended(step), Some("done"), "{step}: {report:#}\n{told}");
    }
    assert_eq!(ran.ended("peers"), None);
    let checks = ran.list("checks");
    assert_eq!(checks.len(), 30, "{report:#}");
    for check in checks {
        let passed = check["error"].is_null() && check["cases"].as_u64() > Some(0);
        assert!(passed, "{check:#}\n{told}");
    }
    // Not every file system has direct reads, nor every sandbox a page cache that can be emptied.
    let skipped = ran.list("skipped");
    let only_disk = skipped.iter().all(|why| why.as_str().unwrap().contains("the disk"));
    assert!(only_disk, "{report:#}\n{told}");
    let figures = ran.list("figures");
    for figure in figures {
        let number = figure["figure"].as_f64().unwrap_or_else(|| panic!("{figure:#}"));
        assert!(number.is_finite() && number > 0.0, "{figure:#}");
    }
    let judged = |part: &str| {
        let judged = figures.iter().filter(|figure| !figure["target"].is_null());
        judged.filter(|figure| figure["name"].as_str().unwrap().contains(part)).count()
    };
    let disk = usize::from(skipped.is_empty());
    let wanted = [
        ("crc64 / copy within the GPU", 1),
        ("cast ", 12),
        ("process start to last tensor / to plain copy", 1),
        ("/ as one tensor", 2),
        ("from tmpfs / pinned memory to the GPU", 1),
        ("from tmpfs, --memory-limit 512MiB / pinned memory to the GPU", 1),
        ("from the page cache / pinned memory to the GPU", 1),
        ("from the page cache, --memory-limit 512MiB / pinned memory to the GPU", 1),
        (": pinned", 4),
        ("from the disk / direct reads", disk),
        ("", 24 + disk),
    ];
    assert_eq!(wanted.map(|(part, _)| (part, judged(part))), wanted, "{report:#}");
}

/// A step prints a figure after each turn: what is cut off must not take earlier turns with it.
#[test]
fn figures_are_written_after_every_turn() {
    let mut run = Run::new(plain_pack(), &["copies"]);
    run.command.arg("--turns=3");
    let ran = run.results();
    let copies = |line: &&Value| line["name"] == "copies of 64 KiB from pinned memory";
    let turns: Vec<_> = ran
        .lines
        .iter()
        .filter(copies)
        .map(|line| line["turns"].as_array().unwrap().len())
        .collect();
    assert_eq!(turns, [0, 1, 2, 3], "{}", ran.told);
}
