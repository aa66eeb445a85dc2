//! The complete path to a GPU with many seeds of the driver's stand-in: copies are late and
//! interleaved, loads have every shape and end in every way, and every byte is compared.
//!
//! The campaign runs in child processes, which find the stand-in through their library path. A
//! second test proves that the campaign can fail: it must find a bug that is planted into the
//! library.

use crate::alone;
use crate::common::stand_in::stand_in;
use crate::common::{is_full, is_long, skip};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The seeds that a child process runs: `from..to`.
const SEEDS: &str = "RINGLOAD_TEST_SEEDS";

/// Starts the campaign of a test binary.
fn start(test_binary: &Path, from: u64, to: u64) -> Child {
    Command::new(test_binary)
        .args(["--exact", "cuda_seeds::campaign", "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", stand_in())
        .env("CUDA_STAND_IN_GDS", "on")
        .env(SEEDS, format!("{from}..{to}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_byte_arrives_under_many_seeds() {
    let _alone = alone(); // pipes of children are descriptors of this process
    let seeds = if is_long() {
        20_000
    } else if is_full() {
        1000
    } else {
        300
    };
    let this = env::current_exe().unwrap();
    let children = [start(&this, 0, seeds / 2), start(&this, seeds / 2, seeds)];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// The bug: a slot returns to the ring when its copies are queued instead of when they have
/// finished.
#[test]
fn the_campaign_finds_a_slot_that_is_returned_before_its_event() {
    let _alone = alone();
    if !is_full() {
        return skip("it compiles the library again, which `tests/run.sh --full` does");
    }
    let planted = build_with_canary("early_slot");
    let output = start(&planted, 0, 100).wait_with_output().unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "the planted bug was not found: {said}");
    assert!(said.contains("cuda stand-in: ") && said.contains("rewritten"), "{said}");
}

/// Builds this test binary with the bug planted into the library.
fn build_with_canary(canary: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // The command is built with it, and later tests want it as it is.
    let command = option_env!("CARGO_BIN_EXE_ringload").map(PathBuf::from);
    let kept = command.as_ref().map(|command| command.with_extension("kept"));
    if let (Some(command), Some(kept)) = (&command, &kept) {
        std::fs::copy(command, kept).unwrap();
    }
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "ringload", "--test", "process", "--no-run"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target)
        .env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/support/canary_rustc.sh"))
        .env("RINGLOAD_CANARY", canary)
        .current_dir(root)
        .output()
        .unwrap();
    if let (Some(command), Some(kept)) = (&command, &kept) {
        std::fs::rename(kept, command).unwrap();
    }
    assert!(output.status.success(), "{}", said(&output));
    let messages = String::from_utf8(output.stdout).unwrap();
    let test_binary = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "process";
        message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    };
    messages.lines().find_map(test_binary).unwrap()
}

#[test]
#[ignore = "needs the stand-in in its library path; run by the tests above"]
fn campaign() {
    let seeds = env::var(SEEDS).unwrap();
    let (from, to) = seeds.split_once("..").unwrap();
    crate::cuda_campaign::run(from.parse().unwrap()..to.parse().unwrap());
}
