//! The findings of the diagnosis, and how they are printed.

use crate::format;
use ringload::internals::shown;
use serde::Serialize;
use std::io::{self, Write};

/// The meaning of a finding for loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good for fast loads.
    Ok,
    /// Loads are slower than they could be; there is a remedy.
    Warn,
    /// Neither good nor bad.
    Info,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Info => "info",
        }
    }
}

/// A fact about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub topic: &'static str,
    pub fact: String,
    /// The remedies of a warning.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remedies: Vec<String>,
}

impl Finding {
    pub fn ok(topic: &'static str, fact: impl Into<String>) -> Self {
        Finding { level: Level::Ok, topic, fact: shown(fact.into()), remedies: Vec::new() }
    }

    pub fn info(topic: &'static str, fact: impl Into<String>) -> Self {
        Finding { level: Level::Info, ..Self::ok(topic, fact) }
    }

    pub fn warn<const N: usize>(
        topic: &'static str,
        fact: impl Into<String>,
        remedies: [&str; N],
    ) -> Self {
        let remedies = remedies.map(String::from).into();
        Finding { level: Level::Warn, remedies, ..Self::ok(topic, fact) }
    }
}

/// Writes each finding on a line with its remedies indented below, and then how many warnings there
/// are.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    let topic_width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    for Finding { level, topic, fact, remedies } in findings {
        writeln!(out, "{:<4}  {topic:<topic_width$}  {fact}", level.as_str())?;
        for remedy in remedies {
            writeln!(out, "      {:topic_width$}    remedy: {remedy}", "")?;
        }
    }
    writeln!(out, "{}", conclusion(findings))
}

fn conclusion(findings: &[Finding]) -> String {
    match findings.iter().filter(|finding| finding.level == Level::Warn).count() {
        0 => "nothing to improve".into(),
        warnings => format!("{} to improve", format::count(warnings, "thing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_line_up_with_remedies_below() {
        let findings = [
            Finding::ok("kernel", "6.8.0"),
            Finding::warn("open files", "1024", ["ulimit -n 65536"]),
        ];
        let mut out = Vec::new();
        write(&mut out, &findings).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok    kernel      6.8.0\n\
             warn  open files  1024\n                    remedy: ulimit -n 65536\n\
             1 thing to improve\n"
        );
    }

    #[test]
    fn json_leaves_out_empty_remedies() {
        let json = serde_json::to_string(&Finding::info("numa", "1 node")).unwrap();
        assert_eq!(json, r#"{"level":"info","topic":"numa","fact":"1 node"}"#);
    }
}
