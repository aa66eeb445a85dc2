//! Checks whether a client runs on this machine, by loading a few bytes with it, and stores the result.
//!
//! The check is repeated when something changed that may change the result: the environment, the
//! source of the clients, our package and library for clients that use them, or whether there is a
//! GPU.

use super::commands::{Why, run};
use super::environment::Environment;
use super::list::{List, Versions};
use super::{Peer, Places, stamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The answer of a client that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// By package.
    pub versions: Versions,
}

/// What a client prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    Runs(Check),
    DoesNot { why: Why },
}

/// The results by the title of the client.
type Answers = BTreeMap<String, Answer>;

#[derive(Serialize, Deserialize)]
struct Answer {
    /// What this result depends on, besides the dependencies of all results.
    made_of: String,
    answer: Result<Check, Why>,
}

/// The results so far.
pub struct Checks {
    file: PathBuf,
    made_of: String,
    is_given: bool,
    answers: Answers,
}

impl Checks {
    /// The stored results that are still valid.
    pub fn read(places: &Places, environment: &Environment) -> Self {
        let file = places.peers.join("checks.json");
        let installed = |path: &Path| {
            // The time of the last change: an environment is renewed by writing its stamp.
            let stamp = path.ancestors().nth(2).map(|folder| folder.join("installed.json"));
            stamp.and_then(|stamp| stamp.metadata().ok()?.modified().ok())
        };
        let clients = places.root.join("perf/peers");
        let made_of = format!(
            "{}, installed {:?}; clients {:?}; GPU: {}",
            environment.python.display(),
            installed(&environment.python),
            newest(&clients),
            Path::new("/dev/nvidiactl").exists(),
        );
        let answers = stamp::read(&file, &made_of).unwrap_or_default();
        Self { file, made_of, is_given: environment.is_given, answers }
    }

    /// The result for `peer`, which `command` checks. It also depends on what the peer is `made_of`.
    pub fn of(
        &mut self,
        peer: Peer,
        made_of: &str,
        mut command: Command,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Check, Why> {
        match self.answers.get(peer.title()).filter(|known| known.made_of == made_of) {
            // An environment that is managed elsewhere may have been repaired.
            Some(Answer { answer: Err(_), .. }) if self.is_given => {}
            Some(Answer { answer, .. }) => return answer.clone(),
            None => {}
        }
        progress(&format!("{}: does it run here?", peer.title()));
        let device = if peer.needs_gpu() { "cuda:0" } else { "cpu" };
        command.args(["--check", "--device", device]);
        let answer = run(&mut command).and_then(|printed| parse(&printed));
        let known = Answer { made_of: made_of.to_owned(), answer: answer.clone() };
        self.answers.insert(peer.title().to_owned(), known);
        answer
    }

    /// Stores the results for the next session.
    pub fn write(&self) -> anyhow::Result<()> {
        stamp::write(&self.file, &self.made_of, &self.answers)
    }
}

impl Check {
    /// Checks that the versions are those of the list. An environment that was given may have other
    /// versions, but the packages that are layered over it may not.
    pub fn verified(self, peer: Peer, list: &List, is_given: bool) -> Result<Self, Why> {
        let is_next = peer == Peer::SafetensorsNext;
        let wanted = |package: &str| match list.python_next.get(package) {
            Some(version) if is_next => Some(version),
            _ if is_given => None,
            _ => list.python.get(package),
        };
        for (package, version) in &self.versions {
            if let Some(wanted) = wanted(package).filter(|wanted| *wanted != version) {
                return Err(format!("{package} is {version}, and perf/peers.toml says {wanted}"));
            }
        }
        Ok(self)
    }
}

/// The answer is the last line, as libraries of a client may print, too.
fn parse(printed: &str) -> Result<Check, Why> {
    let line = printed.lines().last().unwrap_or_default();
    match serde_json::from_str(line) {
        Ok(Printed::Runs(check)) => Ok(check),
        Ok(Printed::DoesNot { why }) => Err(why),
        Err(_) => Err(format!("it printed {line:?} instead of its versions")),
    }
}

/// When the newest file of a folder changed.
fn newest(folder: &Path) -> Option<std::time::SystemTime> {
    let changed =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.metadata().ok()?.modified().ok();
    folder.read_dir().ok()?.filter_map(changed).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List::parse(include_str!("../../peers.toml")).unwrap()
    }

    fn check(package: &str, version: &str) -> Check {
        Check { versions: [(package.to_owned(), version.to_owned())].into() }
    }

    #[test]
    fn versions_are_those_of_the_list() {
        let verified = |peer, version, given| {
            check("safetensors", version).verified(peer, &list(), given).map(|_| ())
        };
        assert_eq!(verified(Peer::Safetensors, "0.8.0", false), Ok(()));
        assert!(verified(Peer::Safetensors, "0.7.0", false).is_err());
        assert_eq!(verified(Peer::Safetensors, "0.7.0", true), Ok(()));
        assert_eq!(verified(Peer::SafetensorsNext, "0.9.0rc1", true), Ok(()));
        assert_eq!(
            verified(Peer::SafetensorsNext, "0.8.0", true),
            Err("safetensors is 0.8.0, and perf/peers.toml says 0.9.0rc1".to_owned())
        );
    }

    #[test]
    fn answers_are_the_last_line() {
        let printed = "a banner\n{\"versions\": {\"torch\": \"2.15.0\"}}\n";
        assert_eq!(parse(printed), Ok(check("torch", "2.15.0")));
        assert_eq!(parse("{\"why\": \"no GPU\"}"), Err("no GPU".to_owned()));
        assert!(parse("").is_err());
    }
}
