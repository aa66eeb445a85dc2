//! Runs commands that may fail, and extracts the line that explains a failure.

use std::process::{Command, Stdio};

/// Why something is not available.
pub type Why = String;

/// What the command prints.
///
/// # Errors
///
/// Why it failed.
pub fn run(command: &mut Command) -> Result<String, Why> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(reason(&errors).unwrap_or_else(|| format!("{name} ended with {}", output.status)))
}

/// The most informative line of an error output: pip and cargo mark it, in Python it is the last.
fn reason(errors: &str) -> Option<Why> {
    let lines = || errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let marked = || lines().find(|line| line.starts_with("ERROR: ") || line.starts_with("error"));
    let line = marked().or_else(|| lines().next_back())?;
    Some(line.trim_start_matches("ERROR: ").trim_start_matches("error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String, Why> {
        run(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn what_is_printed_is_given() {
        assert_eq!(shell("echo one; echo two >&2"), Ok("one\n".to_owned()));
    }

    #[test]
    fn the_reason_is_one_line() {
        let pip =
            "echo 'WARNING: slow' >&2; echo 'ERROR: No matching distribution found for x' >&2;
                   echo 'hint: see above' >&2; exit 1";
        assert_eq!(shell(pip), Err("No matching distribution found for x".to_owned()));
        let python = "echo Traceback: >&2; echo 'ImportError: no libx.so' >&2; exit 1";
        assert_eq!(shell(python), Err("ImportError: no libx.so".to_owned()));
    }

    #[test]
    fn a_command_that_says_nothing_has_a_reason_too() {
        assert_eq!(shell("exit 3"), Err("sh ended with exit status: 3".to_owned()));
        assert_eq!(shell("kill -9 $$"), Err("sh ended with signal: 9 (SIGKILL)".to_owned()));
        let missing = run(&mut Command::new("/nowhere/to/be/found")).unwrap_err();
        assert!(missing.starts_with("/nowhere/to/be/found cannot be run: "), "{missing}");
    }
}
