//! Tests that run themselves again in a process of their own, which finds the driver's stand-in.

use super::stand_in::stand_in;
use std::env;
use std::process::{Command, Output};

/// Set in processes that find the stand-in.
const CHILD: &str = "RINGLOAD_TEST_STAND_IN_CHILD";

/// Whether this process is one that [`in_a_child`] started.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs this test, `module::name`, by itself in a process that finds the stand-in.
pub fn in_a_child(test: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    command.env("LD_LIBRARY_PATH", stand_in()).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test\n");
    assert!(ran, "no test is named {test}: {output:#?}");
    output
}

/// Runs this test in a child and has it succeed; true in the child itself.
#[track_caller]
pub fn passes_in_a_child(test: &str, variables: &[(&str, &str)]) -> bool {
    if !is_child() {
        let output = in_a_child(test, variables);
        assert!(output.status.success(), "{output:#?}");
    }
    is_child()
}
