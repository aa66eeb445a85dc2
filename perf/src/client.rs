//! A client: a program that loads bytes into memory, how it is started, and what it reports.

use crate::files::Sums;
use crate::records::{Case, Role, Run};
use anyhow::{Context, Result, bail, ensure};
use ringload_measure::figures::Figures;
use ringload_measure::process::{Finished, Invocation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The seconds after which a client counts as hanging.
const SECONDS_MAX: &str = "900";

/// One client of a case.
#[derive(Debug, Clone)]
pub struct Client {
    pub name: String,
    pub role: Role,
    pub invocation: Invocation,
    /// The bytes that it loads, if it prints no figures: those of its process are used.
    pub silent_bytes: Option<u64>,
    pub check: Check,
    /// The only core it may use, if not all.
    pub core: Option<usize>,
    /// The file that it reads, if not that of the other clients.
    pub reads: Option<PathBuf>,
}

/// How the loaded bytes are checked.
#[derive(Debug, Clone)]
pub enum Check {
    /// With `--digest` it prints the SHA-256 of every tensor.
    Digests,
    /// With this invocation, it writes the file to its standard output.
    Output(Invocation),
    /// Not checked: a limit does not use the bytes that it reads.
    Trust,
}

/// The checksums that a client reports.
#[derive(Debug, Deserialize)]
struct Reported {
    #[serde(default)]
    digests: BTreeMap<String, String>,
}

impl Client {
    pub fn new(name: impl Into<String>, role: Role, invocation: Invocation) -> Self {
        let (silent_bytes, core, reads) = (None, None, None);
        Self { name: name.into(), role, invocation, silent_bytes, check: Check::Trust, core, reads }
    }

    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    #[must_use]
    pub fn checked_by(self, check: Check) -> Self {
        Self { check, ..self }
    }

    /// The same client with another variable.
    #[must_use]
    pub fn env(self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        Self { invocation: self.invocation.env(name, value), ..self }
    }

    /// The same client under another name.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { name: format!("{}, again", self.name), role: Role::Control, ..self.clone() }
    }

    /// Runs the client once and checks its bytes against `sums`.
    ///
    /// # Errors
    /// When it fails, or its bytes differ.
    pub fn verify(&self, sums: &Sums) -> Result<()> {
        match &self.check {
            Check::Trust => drop(self.finished(self.invocation.clone())?),
            Check::Output(writes) => {
                let summed = writes.clone().under(&["sh", "-c", "\"$@\" | sha256sum", "sh"]);
                let output = self.finished(summed)?.output;
                let is_same = output.starts_with(sums.file_sha256.as_bytes());
                ensure!(is_same, "{} wrote other bytes than the file has", self.name);
            }
            Check::Digests => {
                let ended = self.finished(self.invocation.clone().arg("--digest"))?;
                self.compare(&ended.json::<Reported>()?.digests, &sums.sha256)?;
            }
        }
        Ok(())
    }

    /// Runs the client once, as `turn` of `case`.
    ///
    /// # Errors
    /// When it fails or reports no figures.
    pub fn run(&self, case: &Case, turn: usize) -> Result<Run> {
        let ended = self.finished(self.invocation.clone())?;
        let figures = match self.silent_bytes {
            None => ended.json().with_context(|| format!("{} reports no figures", self.name))?,
            Some(bytes) => Figures {
                bytes,
                seconds: ended.seconds,
                cpu_seconds: ended.cpu_seconds,
                ..Figures::default()
            },
        };
        let peak_rss_bytes = figures.peak_rss_bytes.or(ended.peak_rss_bytes);
        let figures = Figures { process_seconds: ended.seconds, peak_rss_bytes, ..figures };
        Ok(Run::of(case, &self.name, self.role, turn, figures))
    }

    fn finished(&self, invocation: Invocation) -> Result<Finished> {
        let limited = invocation.under(&["timeout", "--foreground", "--signal=KILL", SECONDS_MAX]);
        Ok(match self.core {
            Some(core) => limited.under(&["taskset", "--cpu-list", &core.to_string()]).run()?,
            None => limited.run()?,
        })
    }

    fn compare(
        &self,
        found: &BTreeMap<String, String>,
        wanted: &BTreeMap<String, String>,
    ) -> Result<()> {
        let (client, count) = (&self.name, (found.len(), wanted.len()));
        ensure!(count.0 == count.1, "{client} gave {} tensors instead of {}", count.0, count.1);
        let other = wanted.iter().find(|&(name, sum)| found.get(name) != Some(sum));
        other.map_or(Ok(()), |(name, _)| bail!("{client} gave other bytes for {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::hexadecimal;
    use crate::scenario::case;
    use aws_lc_rs::digest::{SHA256, digest};

    fn client(script: &str, check: Check) -> Client {
        let invocation = Invocation::new("sh").args(["-c", script]);
        Client::new("it", Role::Peer, invocation).checked_by(check)
    }

    fn sums() -> Sums {
        let mut sums = Sums::default();
        sums.sha256.insert("a".into(), "7".into());
        sums.file_sha256 = hexadecimal(digest(&SHA256, b"file").as_ref());
        sums
    }

    const FIGURES: &str = r#""bytes": 1, "seconds": 2.0, "cpu_seconds": 1.0"#;

    #[test]
    fn other_bytes_are_an_error() {
        let of = |sum| {
            client(
                &format!("echo log; echo '{{{FIGURES}, \"digests\": {{\"a\": \"{sum}\"}}}}'"),
                Check::Digests,
            )
        };
        of(7).verify(&sums()).unwrap();
        assert_eq!(of(8).verify(&sums()).unwrap_err().to_string(), "it gave other bytes for a");
        let none = client(&format!("echo '{{{FIGURES}}}'"), Check::Digests).verify(&sums());
        assert_eq!(none.unwrap_err().to_string(), "it gave 0 tensors instead of 1");
        let writes = |text: &str| Invocation::new("printf").arg(text);
        let output = |text: &str| client("exit 1", Check::Output(writes(text)));
        output("file").verify(&sums()).unwrap();
        assert!(output("else").verify(&sums()).is_err());
    }

    #[test]
    fn figures_are_the_client_s_own_or_the_process_s() {
        let case = case("s", "c", String::new());
        let run = client(&format!("echo '{{{FIGURES}}}'"), Check::Trust).run(&case, 3).unwrap();
        assert_eq!((run.bytes, run.seconds, run.turn), (1, 2.0, 3));
        let silent = Client { silent_bytes: Some(9), ..client("sleep 0.05", Check::Trust) };
        let run = silent.run(&case, 0).unwrap();
        assert!(run.bytes == 9 && run.seconds >= 0.05 && run.cpu_seconds < 0.05, "{run:?}");
        assert!(client("echo none", Check::Trust).run(&case, 0).is_err());
    }
}
