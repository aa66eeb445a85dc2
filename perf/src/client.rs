//! A client: a program that loads bytes into memory, how it is started, and what it reports.

use crate::child::Invocation;
use crate::files::Sums;
use crate::records::{Role, Run};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One client of a case.
#[derive(Debug, Clone)]
pub struct Client {
    pub name: String,
    pub role: Role,
    pub invocation: Invocation,
    pub reporting: Reporting,
    pub check: Check,
    /// The only core it may use, if not all.
    pub core: Option<usize>,
    /// The file that it reads, if not that of the other clients.
    pub reads: Option<PathBuf>,
}

/// What a client prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporting {
    /// One JSON object with its figures: [`ReportedFigures`].
    Json,
    /// No figures: those of the process are used, for `bytes`.
    Nothing { bytes: u64 },
}

/// How the loaded bytes are checked.
#[derive(Debug, Clone)]
pub enum Check {
    /// With `--sums` it prints the CRC-32 of every tensor.
    Sums,
    /// With `--digest` it prints the SHA-256 of every tensor.
    Digests,
    /// With this invocation, it writes the file to its standard output.
    Output(Invocation),
    /// Not checked: a limit does not use the bytes that it reads.
    Trust,
}

/// The figures that a client reports.
#[derive(Debug, Deserialize)]
struct ReportedFigures {
    bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_bytes: Option<u64>,
    first_tensor_seconds: Option<f64>,
    last_tensor_seconds: Option<f64>,
    #[serde(default)]
    sums: BTreeMap<String, u32>,
    #[serde(default)]
    digests: BTreeMap<String, String>,
}

impl Client {
    pub fn new(name: impl Into<String>, role: Role, invocation: Invocation) -> Self {
        Self {
            name: name.into(),
            role,
            invocation,
            reporting: Reporting::Json,
            check: Check::Trust,
            core: None,
            reads: None,
        }
    }

    #[must_use]
    pub fn checked_by(self, check: Check) -> Self {
        Self { check, ..self }
    }

    #[must_use]
    pub fn reporting(self, reporting: Reporting) -> Self {
        Self { reporting, ..self }
    }

    #[must_use]
    pub fn reading(self, file: impl Into<PathBuf>) -> Self {
        Self { reads: Some(file.into()), ..self }
    }

    #[must_use]
    pub fn on_core(self, core: Option<usize>) -> Self {
        Self { core, ..self }
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
        let invocation = match &self.check {
            Check::Sums => self.invocation.clone().arg("--sums"),
            Check::Digests => self.invocation.clone().arg("--digest"),
            Check::Output(writes) => writes.summed(),
            Check::Trust => self.invocation.clone(),
        };
        let output = invocation.run(self.core)?.output;
        match &self.check {
            Check::Trust => {}
            Check::Output(_) => ensure!(
                output.starts_with(sums.file_sha256.as_bytes()),
                "{} wrote other bytes than the file has",
                self.name
            ),
            Check::Digests => same(&self.name, &reported(&output)?.digests, &sums.sha256)?,
            Check::Sums => same(&self.name, &reported(&output)?.sums, &sums.crc32)?,
        }
        Ok(())
    }

    /// Runs the client once. The caller sets `scenario`, `case` and `turn`.
    ///
    /// # Errors
    /// When it fails or reports no figures.
    pub fn run(&self, scenario: &str, case: &str, turn: usize) -> Result<Run> {
        let ended = self.invocation.run(self.core)?;
        let reported = match self.reporting {
            Reporting::Json => reported(&ended.output)
                .with_context(|| format!("{} reports no figures", self.name))?,
            Reporting::Nothing { bytes } => ReportedFigures {
                bytes,
                seconds: ended.seconds,
                cpu_seconds: ended.cpu_seconds,
                peak_rss_bytes: None,
                first_tensor_seconds: None,
                last_tensor_seconds: None,
                sums: BTreeMap::new(),
                digests: BTreeMap::new(),
            },
        };
        Ok(Run {
            scenario: scenario.to_owned(),
            case: case.to_owned(),
            client: self.name.clone(),
            role: self.role,
            turn,
            bytes: reported.bytes,
            seconds: reported.seconds,
            cpu_seconds: reported.cpu_seconds,
            process_seconds: ended.seconds,
            first_tensor_seconds: reported.first_tensor_seconds,
            last_tensor_seconds: reported.last_tensor_seconds,
            peak_rss_bytes: reported.peak_rss_bytes.or(ended.peak_rss_bytes),
            server_cpu_seconds: None,
        })
    }
}

/// The JSON object that a client printed, possibly after other lines.
fn reported(output: &[u8]) -> Result<ReportedFigures> {
    let text = std::str::from_utf8(output)?;
    let start = text.find("\n{").map_or_else(|| text.find('{'), |found| Some(found + 1));
    let Some(start) = start else { bail!("it printed no JSON object, but {text:?}") };
    Ok(serde_json::from_str(&text[start..])?)
}

fn same<T: PartialEq>(
    client: &str,
    found: &BTreeMap<String, T>,
    wanted: &BTreeMap<String, T>,
) -> Result<()> {
    let count = (found.len(), wanted.len());
    ensure!(count.0 == count.1, "{client} gave {} tensors instead of {}", count.0, count.1);
    let other = wanted.iter().find(|&(name, sum)| found.get(name) != Some(sum));
    if let Some((name, _)) = other {
        bail!("{client} gave other bytes for {name}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::hexadecimal;
    use aws_lc_rs::digest::{SHA256, digest};

    fn client(script: &str, check: Check) -> Client {
        let invocation = Invocation::new("sh").args(["-c", script]);
        Client::new("it", Role::Peer, invocation).checked_by(check)
    }

    fn sums() -> Sums {
        let mut sums = Sums::default();
        sums.crc32.insert("a".into(), 7);
        sums.file_sha256 = hexadecimal(digest(&SHA256, b"file").as_ref());
        sums
    }

    const FIGURES: &str = r#""bytes": 1, "seconds": 2.0, "cpu_seconds": 1.0"#;

    #[test]
    fn other_bytes_are_an_error() {
        let of = |sum| {
            client(
                &format!("echo log; echo '{{{FIGURES}, \"sums\": {{\"a\": {sum}}}}}'"),
                Check::Sums,
            )
        };
        of(7).verify(&sums()).unwrap();
        assert_eq!(of(8).verify(&sums()).unwrap_err().to_string(), "it gave other bytes for a");
        let none = client(&format!("echo '{{{FIGURES}}}'"), Check::Sums).verify(&sums());
        assert_eq!(none.unwrap_err().to_string(), "it gave 0 tensors instead of 1");
        let writes = |text: &str| Invocation::new("printf").arg(text);
        let output = |text: &str| client("exit 1", Check::Output(writes(text)));
        output("file").verify(&sums()).unwrap();
        assert!(output("else").verify(&sums()).is_err());
    }

    #[test]
    fn figures_are_the_client_s_own_or_the_process_s() {
        let run = client(&format!("echo '{{{FIGURES}}}'"), Check::Trust).run("s", "c", 3).unwrap();
        assert_eq!((run.bytes, run.seconds, run.turn), (1, 2.0, 3));
        let silent = client("sleep 0.05", Check::Trust).reporting(Reporting::Nothing { bytes: 9 });
        let run = silent.run("s", "c", 0).unwrap();
        assert!(run.bytes == 9 && run.seconds >= 0.05 && run.cpu_seconds < 0.05, "{run:?}");
        assert!(client("echo none", Check::Trust).run("s", "c", 0).is_err());
    }
}
