//! The standard streams of the command may be full, closed or read by nobody.
//!
//! A past bug: a log line that could not be written to standard error ended a load with exit status
//! 101 and without any output, and a load whose standard output was closed (`>&-`) had exit status 0.
//! The same was true of `--help` and `--version` on a full or closed output.

use crate::common::command::{ringload, run};
use crate::common::{Expected, directory, write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn model() -> (TempDir, PathBuf) {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    write(&path, &[Expected::of_bytes("t", 10, 1)], None);
    std::fs::create_dir(directory.path().join("cache")).unwrap();
    (directory, path)
}

/// Runs `ringload ARGUMENTS MODEL REDIRECTIONS` in a shell.
fn shell(arguments: &str, redirections: &str, model: &Path) -> Output {
    in_shell(&format!("{arguments} \"$MODEL\" {redirections}"), model).output().unwrap()
}

/// `ringload LINE` in a shell with the variables `MODEL` and `FOLDER`, its directory.
fn in_shell(line: &str, model: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec \"$RINGLOAD\" {line}"));
    command.env("MODEL", model).env("FOLDER", model.parent().unwrap());
    command.env("RINGLOAD", ringload().get_program()).env_remove("RINGLOAD_LOG");
    command
}

/// Everything that the command can be asked for and that it answers on standard output.
fn answers() -> Vec<String> {
    let mut answers: Vec<_> = ["--help", "-h", "--version", "-V", "help", "help load"]
        .into_iter()
        .map(String::from)
        .collect();
    for command in ["load", "fetch", "inspect", "cache", "cache ls", "doctor", "bench"] {
        answers.extend([format!("{command} --help"), format!("{command} -h")]);
    }
    let cache = "cache --cache-dir $FOLDER/cache";
    for command in [
        "load $MODEL",
        "inspect $MODEL",
        "fetch --to $FOLDER/plain $MODEL",
        "doctor $MODEL",
        "bench --runs 1 $MODEL",
        &format!("{cache} ls"),
        &format!("{cache} prune"),
    ] {
        answers.extend([command.to_owned(), format!("{command} --json")]);
    }
    // Without --json nothing is printed for an empty cache.
    answers.push(format!("{cache} verify --json"));
    answers.extend(["load --digest $MODEL", "sum $MODEL", "sum --help"].map(String::from));
    answers
}

#[test]
fn a_log_that_cannot_be_written_fails_no_load() {
    let (_directory, model) = model();
    for redirection in ["2>/dev/full", "2>&-", "2>/dev/null", "2>&0 </dev/null"] {
        for arguments in ["load -vvv", "inspect -vvv", "load -vvv --json"] {
            let output = shell(arguments, redirection, &model);
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(0), "{arguments} {redirection}: {printed}");
            assert!(printed.len() > 20, "{arguments} {redirection}: {printed:?}");
        }
    }
    // An error that cannot be told still has its exit status.
    for redirection in ["2>/dev/full", "2>&-"] {
        let output = shell("load --read-size 4KiB /nonexistent", redirection, &model);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

#[test]
fn a_closed_output_is_an_error() {
    let (_directory, model) = model();
    for arguments in ["load", "load --json", "load --digest", "inspect", "doctor"] {
        let output = shell(arguments, ">&-", &model);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {told}");
        assert!(told.starts_with("error: cannot write to standard output\ncaused by: "), "{told}");
    }
    // /dev/null is an open output, whatever it was opened for.
    for redirection in [">/dev/null", "1<>/dev/null", ">/dev/null 2>&- <&-"] {
        let output = shell("load", redirection, &model);
        assert_eq!(output.status.code(), Some(0), "{redirection}: {output:?}");
    }
}

#[test]
fn every_answer_that_cannot_be_written_is_an_error() {
    let (_directory, model) = model();
    for (redirection, cause) in [(">/dev/full", "No space left"), (">&-", "Bad file descriptor")] {
        for answer in answers() {
            let output = in_shell(&format!("{answer} {redirection}"), &model).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{answer} {redirection}: {told}");
            let begin = format!("error: cannot write to standard output\ncaused by: {cause}");
            assert!(told.starts_with(&begin), "{answer} {redirection}: {told}");
        }
    }
}

#[test]
fn every_answer_that_nobody_reads_ends_quietly() {
    let (_directory, model) = model();
    for answer in answers() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = in_shell(&answer, &model).stdout(writer).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*told), (Some(0), ""), "{answer}");
    }
}

#[test]
fn an_output_that_is_read_in_part_is_no_failure() {
    let (_directory, model) = model();
    let output = shell("inspect", "| head -c 1", &model);
    assert_eq!((output.status.signal(), output.stderr), (None, Vec::new()));
    run(ringload().arg("inspect").arg(&model)).quiet_success();
}
