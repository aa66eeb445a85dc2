//! The error type of the subcommands.

use ringload::internals::shown;
use ringload::{Error, ErrorKind};
use std::error::Error as _;
use std::io;
use std::process::ExitCode;

/// The result of a subcommand.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The reason why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The library refused or failed.
    #[error(transparent)]
    Library(#[from] ringload::Error),
    /// An argument is wrong, whatever files and servers there are.
    #[error(transparent)]
    Usage(ringload::Error),
    /// Standard output could not be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl Failure {
    /// Wrong usage, explained by `sentence`.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Failure::Usage(Error::new(ErrorKind::InvalidInput, sentence))
    }

    /// Whether the reader of standard output has closed it (`ringload ... | head`).
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status: 2 for wrong usage, or else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// The message, and each cause on its own line unless it repeats the one before.
    pub fn report(&self) -> String {
        let mut report = format!("error: {self}");
        let mut last = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Errors of other crates may repeat bytes of a file or a server.
            let text = shown(error);
            if text != last {
                report.push_str("\ncaused by: ");
                report.push_str(&text);
            }
            last = text;
            cause = error.source();
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_cause_once() {
        let cause = io::Error::other("the disk is on fire");
        let error = Error::new(ErrorKind::Io, "cannot read a.safetensors");
        let failure = Failure::from(error.with_source(cause));
        assert_eq!(
            failure.report(),
            "error: cannot read a.safetensors\ncaused by: the disk is on fire"
        );
    }

    #[test]
    fn only_a_closed_pipe_on_the_output_is_quiet() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::Output(closed()).is_closed_pipe());
        assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).is_closed_pipe());
        let other = Error::from_io("look", closed());
        assert!(!Failure::from(other).is_closed_pipe());
    }
}
