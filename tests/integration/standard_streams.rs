//! The standard streams of the command may be full, closed or read by nobody.
//!
//! A past bug: a log line that could not be written to standard error ended a load with exit status
//! 101 and without any output, and a load whose standard output was closed (`>&-`) had exit status 0.

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
    (directory, path)
}

/// Runs `ringload ARGUMENTS REDIRECTIONS` in a shell.
fn shell(arguments: &str, redirections: &str, model: &Path) -> Output {
    let mut command = Command::new("sh");
    let line = format!("exec \"$RINGLOAD\" {arguments} \"$MODEL\" {redirections}");
    command.arg("-c").arg(line).env("MODEL", model).env("RINGLOAD", ringload().get_program());
    command.env_remove("RINGLOAD_LOG").output().unwrap()
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
fn an_output_that_is_read_in_part_is_no_failure() {
    let (_directory, model) = model();
    let output = shell("inspect", "| head -c 1", &model);
    assert_eq!((output.status.signal(), output.stderr), (None, Vec::new()));
    run(ringload().arg("inspect").arg(&model)).quiet_success();
}
