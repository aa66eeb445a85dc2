//! Runs that are stopped, by their own time limit or from outside, and runs that go on.

use super::pack::*;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Steps that take little time.
const QUICK: [&str; 3] = ["machine", "right-kernels", "copies"];

/// A step of a run hangs in the driver. The run ends in time, and says so; a later run begins the step
/// again, and not those that are finished.
#[test]
fn a_step_that_hangs_is_stopped_and_begun_again_by_the_next_run() {
    let mut run = Run::new(plain_pack(), &["machine"]);
    assert_eq!(run.results().ended("machine"), Some("done"));

    // A context never comes into being.
    let never = [("CUDA_STAND_IN_CONTEXT_AFTER", "/nowhere")];
    let began = Instant::now();
    run.command = Run::again(plain_pack(), &run.directory, &["right-kernels"]);
    run.command.args(["--minutes", "0.12"]);
    let ran = Run { directory: run.directory, command: run.command }.with(&never);
    let mut run = ran;
    let stopped = run.results();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(stopped.ended("right-kernels"), Some("cut"), "{}", stopped.told);
    assert!(!stopped.status.success() && stopped.told.contains("not finished: right-kernels"));
    assert!(stopped.table.contains("cut off"), "{}", stopped.table);
    assert!(is_empty(&run.directory.path().join("work")), "files stay behind");

    run.command = Run::again(plain_pack(), &run.directory, &["machine", "right-kernels"]);
    let ended = run.results();
    assert_eq!(ended.ended("right-kernels"), Some("done"), "{}", ended.told);
    assert_eq!((ended.begun("machine"), ended.begun("right-kernels")), (1, 2));
}

#[test]
fn steps_for_which_no_time_is_left_are_not_begun() {
    let mut run = Run::new(plain_pack(), &QUICK);
    run.command.args(["--minutes", "0.01"]);
    let ran = run.results();
    let all = QUICK.iter().all(|step| ran.ended(step).is_none() && ran.begun(step) == 0);
    assert!(all && !ran.status.success(), "{}", ran.told);
    assert!(ran.told.contains("too little time is left"), "{}", ran.told);
}

/// The machine is taken away in the middle: what was measured is in the file, and nothing goes on.
#[test]
fn a_run_that_is_stopped_from_outside_leaves_what_it_has_measured() {
    for signal in ["TERM", "KILL"] {
        let mut run = Run::new(plain_pack(), &["machine", "right-kernels", "kernels"]);
        run.command.args(["--turns=1000", "--buffer=4MiB"]);
        run.command.stdout(Stdio::null()).stderr(Stdio::null());
        let out = run.directory.path().join("out");
        let child = run.command.spawn().unwrap();
        wait_until("the first figures", || {
            let lines = std::fs::read_to_string(out.join("gpu.jsonl")).unwrap_or_default();
            lines.contains(r#""kind":"figure""#)
        });
        let marks = run.directory.path().to_str().unwrap().to_owned();
        let tmpfs = argument_after("--tmpfs", &marks);
        stop(child, signal);
        wait_until("the end of all processes", || command_lines(&marks).is_empty());
        assert!(signal == "KILL" || !Path::new(&tmpfs).exists(), "{tmpfs} stays behind");
        std::fs::remove_dir_all(&tmpfs).ok(); // nobody else can after SIGKILL

        run.command = Run::again(plain_pack(), &run.directory, &["machine"]);
        let ran = run.results();
        assert_eq!(ran.ended("right-kernels"), Some("done"), "{}", ran.told);
        assert_eq!(ran.ended("kernels"), None);
        assert!(ran.table.contains("| stopped"), "{}", ran.table);
        let measured = |figure: &&serde_json::Value| figure["name"] == "crc64, read and written";
        assert_eq!(ran.list("figures").iter().filter(measured).count(), 1, "{}", ran.table);
    }
}

/// Sends a signal to the process of the script.
fn stop(mut child: Child, signal: &str) {
    let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    child.wait().unwrap();
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The arguments of each process that has `words` among them.
fn command_lines(words: &str) -> Vec<Vec<String>> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    let named = lines.filter(|line| line.contains(words));
    named.map(|line| line.split('\0').map(str::to_owned).collect()).collect()
}

/// The argument that follows `name` in a process that has `words` among its arguments.
fn argument_after(name: &str, words: &str) -> String {
    let lines = command_lines(words);
    let found = lines.iter().find_map(|line| {
        let place = line.iter().position(|argument| argument == name)?;
        line.get(place + 1)
    });
    found.unwrap_or_else(|| panic!("no {name} in {lines:?}")).clone()
}

#[test]
fn the_tables_can_be_made_again() {
    let mut run = Run::new(plain_pack(), &["machine"]);
    let ran = run.results();
    let out = run.directory.path().join("out");
    std::fs::remove_file(out.join("gpu.md")).unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_ringload-gpu"));
    let again = command(own).arg("report").arg(&out).output().unwrap();
    assert_eq!(texts(&again).0, ran.table);
    assert_eq!(std::fs::read_to_string(out.join("gpu.md")).unwrap(), ran.table);
}
