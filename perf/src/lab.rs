//! Measures the cases of a session: the tools, the turns, and the records that are written.
//!
//! ```text
//! case: clients ---- turn 0: each client once; its bytes are checked against the file
//!                    turn 1, 2, ...: each client once, in the same order (A B A B ...); before each
//!                    run the files are put into the state that the case requires
//!                 -> runs -> comparisons of the first own client with all others
//! ```
//!
//! A peer that fails or returns other bytes is skipped, which is recorded. If ringload does, the
//! session ends with that error.

use crate::client::Client;
use crate::files::{Checkpoint, Shape, Sums};
use crate::measured::Measured;
use crate::noise::Watch;
use crate::records::{Case, Comparison, Figure, Record, Role, Run, Skipped};
use crate::server::Server;
use crate::store::Emulated;
use crate::targets;
use crate::tools::Tools;
use anyhow::{Context, Result, ensure};
use ringload_measure::figures::Figures;
use ringload_measure::stats::{self, Estimate};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor of the large checkpoint, as in a layer of a model of about a billion parameters.
pub const TENSOR_BYTES: usize = 14 << 20;

/// One measuring session.
pub struct Lab {
    pub tools: Tools,
    /// How often each client runs in a case.
    pub turns: usize,
    /// The size of the large checkpoint.
    pub size_bytes: u64,
    /// Whether servers get a separate core.
    pub apart: bool,
    records: Vec<Record>,
    out: BufWriter<File>,
    watch: Watch,
}

/// Called before a run of the client.
pub type Prepare<'a> = &'a dyn Fn(&Client) -> Result<()>;

/// The settings of one case in addition to its clients.
#[derive(Default)]
pub struct Setting<'a> {
    /// Called before every run.
    pub prepare: Option<Prepare<'a>>,
    /// The checksums of the files, if clients report theirs.
    pub sums: Option<&'a Sums>,
    /// The server whose CPU time is measured, too.
    pub server: Option<&'a Server>,
    /// The store whose counts are recorded, too.
    pub counts: Option<&'a Emulated>,
    /// The name and the seconds of the ideal, which is recorded in each turn as a client is.
    pub ideal: Option<(&'static str, f64)>,
    /// The turns beyond those of other cases, as a multiple of those, for differences that are small
    /// compared with the noise.
    pub more_turns: usize,
}

impl Setting<'_> {
    fn prepare(&self, client: &Client) -> Result<()> {
        self.prepare.map_or(Ok(()), |prepare| prepare(client))
    }
}

impl Lab {
    /// A session whose records are appended to `path`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn new(
        tools: Tools,
        path: &Path,
        turns: usize,
        size_bytes: u64,
        apart: bool,
    ) -> Result<Self> {
        let out = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (out, watch, records) = (BufWriter::new(out), Watch::begin(), Vec::new());
        Ok(Self { tools, turns, size_bytes, apart, records, out, watch })
    }

    /// The checkpoint of `shape`, which is kept for later sessions.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&self, shape: Shape) -> Result<Checkpoint> {
        Checkpoint::kept(&self.tools.keep.join("objects"), shape)
    }

    /// The large checkpoint.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn large(&self) -> Result<Checkpoint> {
        self.checkpoint(Shape::of_bytes(self.size_bytes, TENSOR_BYTES))
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Writes one record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&mut self, record: Record) -> Result<()> {
        serde_json::to_writer(&mut self.out, &record)?;
        self.out.write_all(b"\n")?;
        self.out.flush()?;
        self.records.push(record);
        Ok(())
    }

    /// Records what was not measured, and why.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn skip(&mut self, scenario: &str, what: &str, why: &str) -> Result<()> {
        eprintln!("  not measured: {what}: {why}");
        let (scenario, what, why) = (scenario.to_owned(), what.to_owned(), why.trim().to_owned());
        self.record(Record::Skipped(Skipped { scenario, what, why }))
    }

    /// Runs a scenario and records the noise during it.
    ///
    /// # Errors
    /// When the scenario fails, or the record cannot be written.
    pub fn scenario(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        eprintln!("{name}");
        self.watch = Watch::begin();
        run(self).with_context(|| format!("scenario {name}"))?;
        self.record(Record::Noise(self.watch.end(name)))
    }

    /// Records the figure of a target from the figures of turns.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn reach(&mut self, id: &str, estimate: Option<Estimate>) -> Result<()> {
        self.reach_noted(id, estimate, None)
    }

    /// The same, with a note that explains the figure.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn reach_noted(
        &mut self,
        id: &str,
        estimate: Option<Estimate>,
        note: Option<String>,
    ) -> Result<()> {
        let Some(it) = estimate else { return Ok(()) };
        self.target(id, it.median, Some((it.low, it.high)), note)
    }

    /// Records the figure of a target.
    ///
    /// # Errors
    /// When there is no such target, or the record cannot be written.
    pub fn target(
        &mut self,
        id: &str,
        figure: f64,
        interval: Option<(f64, f64)>,
        note: Option<String>,
    ) -> Result<()> {
        let spec = targets::spec(id).with_context(|| format!("no target is called {id}"))?;
        self.record(Record::Target(spec.met(Some(figure), interval, note)))
    }

    /// Records the targets for which nothing was measured.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub fn finish_targets(&mut self) -> Result<()> {
        for spec in targets::SPECS.iter() {
            let met =
                |record: &Record| matches!(record, Record::Target(target) if target.id == spec.id);
            if !self.records.iter().any(met) {
                self.record(Record::Target(spec.met(None, None, None)))?;
            }
        }
        Ok(())
    }

    /// Runs `clients` in turns.
    ///
    /// # Errors
    /// When ringload fails or returns other bytes, a state of the files cannot be reached, or records
    /// cannot be written.
    pub fn case(
        &mut self,
        case: Case,
        clients: Vec<Client>,
        setting: &Setting,
    ) -> Result<Measured> {
        eprintln!("  {}", case.title);
        self.record(Record::Case(case.clone()))?;
        let mut measured = Measured::default();
        let clients = self.verified(&case.scenario, clients, setting)?;
        let mut clients: Vec<_> = clients.into_iter().map(Some).collect();
        for turn in 0..self.turns * (1 + setting.more_turns) {
            let mut bytes = 0;
            for place in &mut clients {
                let Some(client) = place else { continue };
                setting.prepare(client)?;
                self.watch.listen();
                setting.counts.map(Emulated::counts).transpose()?;
                let served = setting.server.map(Server::cpu_seconds).transpose()?;
                match client.run(&case, turn) {
                    Ok(mut run) => {
                        let now = setting.server.map(Server::cpu_seconds).transpose()?;
                        run.server_cpu_seconds = now.zip(served).map(|(now, before)| now - before);
                        run.server = setting.counts.map(Emulated::counts).transpose()?;
                        bytes = run.bytes;
                        self.record(Record::Run(run.clone()))?;
                        measured.add(run);
                    }
                    Err(error) => {
                        self.left_out(&case.scenario, client, &error)?;
                        *place = None;
                    }
                }
            }
            if let Some((name, seconds)) = setting.ideal {
                let figures = Figures { bytes, seconds, ..Figures::default() };
                let run = Run::of(&case, name, Role::Limit, turn, figures);
                self.record(Record::Run(run.clone()))?;
                measured.add(run);
            }
        }
        self.compare(&case, &measured)?;
        Ok(measured)
    }

    /// Turn 0: returns the clients that run and load the right bytes.
    fn verified(
        &mut self,
        scenario: &str,
        clients: Vec<Client>,
        setting: &Setting,
    ) -> Result<Vec<Client>> {
        let nothing = Sums::default();
        let mut good = Vec::new();
        for client in clients {
            let verify = |()| client.verify(setting.sums.unwrap_or(&nothing));
            match setting.prepare(&client).and_then(verify) {
                Ok(()) => good.push(client),
                Err(error) => self.left_out(scenario, &client, &error)?,
            }
        }
        Ok(good)
    }

    fn left_out(&mut self, scenario: &str, client: &Client, error: &anyhow::Error) -> Result<()> {
        let why = format!("{error:#}");
        let is_own = matches!(client.role, Role::Own | Role::Control);
        ensure!(!is_own, "{}: {why}", client.name);
        self.skip(scenario, &client.name, &why)
    }

    /// Compares the first own client with every other.
    fn compare(&mut self, case: &Case, measured: &Measured) -> Result<()> {
        let Some(own) = measured.clients().find(|(_, role)| *role == Role::Own) else {
            return Ok(());
        };
        let own = own.0.to_owned();
        for figure in [Figure::Seconds, Figure::CpuSecondsPerGigabyte] {
            let noise = measured.noise(figure);
            for (other, role) in measured.clients() {
                if matches!(role, Role::Own | Role::Control) {
                    continue;
                }
                let Some(ratio) = measured.ratio(&own, other, figure) else { continue };
                self.record(Record::Comparison(Comparison {
                    scenario: case.scenario.clone(),
                    case: case.case.clone(),
                    figure,
                    own: own.clone(),
                    other: other.to_owned(),
                    ratio: ratio.median,
                    low: ratio.low,
                    high: ratio.high,
                    difference: stats::difference(ratio, noise),
                }))?;
            }
        }
        Ok(())
    }
}
