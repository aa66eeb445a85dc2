//! A session: builds the binaries, runs the scenarios, and writes records and report.

use crate::lab::Lab;
use crate::peers::Peers;
use crate::records::{Machine, Record, Session};
use crate::report;
use crate::scenario::{self, Scenario};
use crate::tools::Tools;
use anyhow::{Context as _, Result};
use ringload_measure::process::{Finished, Invocation};
use ringload_measure::system;
use std::fs;
use std::path::{Path, PathBuf};

/// What to measure, and how.
#[derive(Debug, clap::Args)]
pub struct SessionArgs {
    /// What to measure; without any, everything
    #[arg(value_name = "SCENARIO", value_parser = scenario::parser())]
    scenarios: Vec<&'static Scenario>,
    /// How often each client runs in a case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: u16,
    /// Size of the large checkpoint, such as 4GiB; objects of network scenarios have half of it
    #[arg(long, default_value = "4GiB", value_parser = size_bytes)]
    size: u64,
    /// Path of the records and the report: NAME.jsonl and NAME.html
    #[arg(long, value_name = "DIR/NAME")]
    out: Option<PathBuf>,
    /// Run servers on a separate core
    #[arg(long)]
    apart: bool,
    /// The Python of an environment with all peers [default: one is created]
    #[arg(long, value_name = "PYTHON")]
    with: Option<PathBuf>,
}

/// Bytes, written as a memory limit is.
fn size_bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ringload::MemoryLimit::Bytes(bytes)) => Ok(bytes),
        _ => Err("use bytes, such as 4000000000, 512MiB or 4GiB".into()),
    }
}

/// Runs the scenarios.
///
/// # Errors
/// When ringload fails in a scenario, or a tool is missing.
pub fn run(args: &SessionArgs) -> Result<()> {
    let tools = Tools::build()?;
    fs::create_dir_all(&tools.keep)?;
    let out = args.out.clone().unwrap_or_else(|| tools.keep.join("report"));
    let records = out.with_extension("jsonl");
    let folder = records.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let scenarios = match args.scenarios.as_slice() {
        [] => scenario::ALL.iter().collect(),
        some => some.to_vec(),
    };
    let wanted: Vec<_> = scenarios.iter().flat_map(|one| one.peers).copied().collect();
    let peers = Peers::prepare(&tools, args.with.as_deref(), &wanted)?;
    let mut lab = Lab::new(tools, &records, args.turns.into(), args.size, args.apart)?;
    let session = session(args, &lab, &peers)?;
    lab.record(Record::Session(session))?;
    for (peer, why) in &peers.skipped {
        lab.skip("peers", peer, why)?;
    }
    for scenario in scenarios {
        lab.scenario(scenario.name, |lab| (scenario.run)(lab, &peers))?;
    }
    lab.finish_targets()?;
    print!("{}", report::terminal(lab.records())?);
    println!("{}\n{}", records.display(), report::render(&records)?.display());
    Ok(())
}

fn session(args: &SessionArgs, lab: &Lab, peers: &Peers) -> Result<Session> {
    let git = Invocation::new("git").arg("-C").arg(&lab.tools.root);
    Ok(Session {
        version: env!("CARGO_PKG_VERSION").into(),
        // With `-dirty` if files were changed since the commit.
        commit: line(git.args(["describe", "--always", "--dirty"]).run()).ok(),
        // In UTC.
        date: line(Invocation::new("date").args(["--utc", "+%Y-%m-%d"]).run())?,
        machine: machine(&lab.tools)?,
        peers: peers.versions.clone(),
        turns: lab.turns,
        command: command(args),
    })
}

/// The command that repeats the session, without the paths of this machine.
fn command(args: &SessionArgs) -> String {
    let scenarios: String = args.scenarios.iter().map(|one| format!(" {}", one.name)).collect();
    let apart = if args.apart { " --apart" } else { "" };
    let (turns, size) = (args.turns, args.size);
    format!(
        "cargo run --release -p ringload-perf --{scenarios} --turns {turns} --size {size}{apart}"
    )
}

/// The line that a command printed.
fn line(ended: std::io::Result<Finished>) -> Result<String> {
    Ok(String::from_utf8(ended?.output)?.trim().to_owned())
}

/// The machine, as reported by `ringload doctor` and the kernel.
fn machine(tools: &Tools) -> Result<Machine> {
    let mut facts = tools.doctor()?;
    let mut fact = |topic: &str| facts.remove(topic).unwrap_or_else(|| "unknown".into());
    let gpu = fact("CUDA");
    Ok(Machine {
        cpu: system::cpu_model().unwrap_or_else(|| "unknown".into()),
        cores: tools.core_count(),
        memory_bytes: system::memory_bytes().unwrap_or_default(),
        kernel: fact("kernel").split(':').next().unwrap_or_default().to_owned(),
        file_system: fact("file system").split(' ').next().unwrap_or_default().to_owned(),
        gpu: (!gpu.starts_with("no ")).then_some(gpu),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_and_nothing_else() {
        assert_eq!(size_bytes("1GiB"), Ok(1 << 30));
        assert!(size_bytes("unlimited").is_err());
    }

    #[test]
    fn a_session_is_repeated_without_this_machine_s_paths() {
        let mut args = SessionArgs {
            scenarios: Vec::new(),
            turns: 7,
            size: 1 << 30,
            out: Some("a/b".into()),
            apart: false,
            with: Some("python".into()),
        };
        let plain = "cargo run --release -p ringload-perf -- --turns 7 --size 1073741824";
        assert_eq!(command(&args), plain);
        (args.scenarios, args.apart) = (vec![scenario::named("http").unwrap()], true);
        let http =
            "cargo run --release -p ringload-perf -- http --turns 7 --size 1073741824 --apart";
        assert_eq!(command(&args), http);
    }
}
