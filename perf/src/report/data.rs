//! The records, arranged for the report: scenarios, their cases, and the clients of each.

use crate::records::{
    Case, Comparison, Noise, Point, Record, Role, Run, Session, Skipped, Target, Trace,
};
use crate::report::text::is_usable;
use crate::stats::median;
use crate::targets;

/// All measurements.
#[derive(Default)]
pub struct Report<'a> {
    pub sessions: Vec<&'a Session>,
    pub targets: Vec<&'a Target>,
    pub scenarios: Vec<Scenario<'a>>,
}

#[derive(Default)]
pub struct Scenario<'a> {
    pub name: &'a str,
    pub cases: Vec<Measured<'a>>,
    pub noise: Vec<&'a Noise>,
    pub traces: Vec<&'a Trace>,
    pub skipped: Vec<&'a Skipped>,
}

/// A case with its runs.
#[derive(Default)]
pub struct Measured<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub point: Option<&'a Point>,
    /// The clients by role, in the order in which they ran.
    pub clients: Vec<Client<'a>>,
    pub comparisons: Vec<&'a Comparison>,
}

/// A client's runs in a case.
pub struct Client<'a> {
    pub name: &'a str,
    pub role: Role,
    pub runs: Vec<&'a Run>,
}

/// The cases of one curve, in the order of its points.
pub struct Curve<'a, 'b> {
    pub name: &'a str,
    pub unit: &'a str,
    pub points: Vec<(f64, &'b Measured<'a>)>,
}

/// The lowest, the median and the highest figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// The range of the finite figures.
    pub fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let figures: Vec<f64> = figures.filter(|it| is_usable(*it) && *it >= 0.0).collect();
        Some(Self {
            low: figures.iter().copied().reduce(f64::min)?,
            median: median(&figures)?,
            high: figures.iter().copied().reduce(f64::max)?,
        })
    }
}

impl Client<'_> {
    pub fn spread(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| figure(run)))
    }

    pub fn seconds(&self) -> Option<Spread> {
        self.spread(|run| Some(run.seconds))
    }

    /// `None` for a run that took no time.
    pub fn gigabytes_per_second(&self) -> Option<Spread> {
        self.spread(|run| (run.seconds > 0.0).then(|| run.gigabytes_per_second()))
    }

    /// `None` for a run that loaded nothing.
    pub fn cpu_seconds_per_gigabyte(&self) -> Option<Spread> {
        self.spread(|run| (run.bytes > 0).then(|| run.cpu_seconds_per_gigabyte()))
    }

    pub fn server_cpu_seconds_per_gigabyte(&self) -> Option<Spread> {
        self.spread(|run| {
            run.server_cpu_seconds.filter(|_| run.bytes > 0).map(|it| it / run.gigabytes())
        })
    }

    pub fn peak_mebibytes(&self) -> Option<Spread> {
        self.spread(|run| run.peak_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)))
    }

    pub fn first_tensor_seconds(&self) -> Option<Spread> {
        self.spread(|run| run.first_tensor_seconds)
    }

    pub fn last_tensor_seconds(&self) -> Option<Spread> {
        self.spread(|run| run.last_tensor_seconds)
    }

    pub fn bytes(&self) -> Option<f64> {
        self.spread(|run| Some(run.bytes as f64)).map(|spread| spread.median)
    }
}

impl<'a> Report<'a> {
    pub fn of(records: &'a [Record]) -> Self {
        let mut report = Self::default();
        for record in records {
            report.add(record);
        }
        for case in report.scenarios.iter_mut().flat_map(|scenario| &mut scenario.cases) {
            case.clients.sort_by_key(|client| client.role);
        }
        report.targets.sort_by_key(|target| targets::place(&target.id));
        report
    }

    /// Every client with its role, in the order of roles and of the runs.
    pub fn clients(&self) -> Vec<(&'a str, Role)> {
        let mut clients: Vec<(&str, Role)> = Vec::new();
        for client in self.scenarios.iter().flat_map(|it| &it.cases).flat_map(|it| &it.clients) {
            if !clients.contains(&(client.name, client.role)) {
                clients.push((client.name, client.role));
            }
        }
        clients.sort_by_key(|(_, role)| *role);
        clients
    }

    fn add(&mut self, record: &'a Record) {
        match record {
            Record::Session(session) => self.sessions.push(session),
            Record::Target(target) => self.targets.push(target),
            Record::Case(case) => self.add_case(case),
            Record::Run(run) => self.case(&run.scenario, &run.case).add_run(run),
            Record::Comparison(comparison) => {
                let case = self.case(&comparison.scenario, &comparison.case);
                case.comparisons.push(comparison);
            }
            Record::Noise(noise) => self.scenario(&noise.scenario).noise.push(noise),
            Record::Trace(trace) => self.scenario(&trace.scenario).traces.push(trace),
            Record::Skipped(skipped) => self.scenario(&skipped.scenario).skipped.push(skipped),
        }
    }

    fn add_case(&mut self, case: &'a Case) {
        let measured = self.case(&case.scenario, &case.case);
        measured.title = &case.title;
        measured.point = case.point.as_ref().filter(|point| is_usable(point.x));
    }

    fn scenario(&mut self, name: &'a str) -> &mut Scenario<'a> {
        let known = self.scenarios.iter().position(|scenario| scenario.name == name);
        let index = known.unwrap_or_else(|| {
            self.scenarios.push(Scenario { name, ..Scenario::default() });
            self.scenarios.len() - 1
        });
        &mut self.scenarios[index]
    }

    fn case(&mut self, scenario: &'a str, name: &'a str) -> &mut Measured<'a> {
        let cases = &mut self.scenario(scenario).cases;
        let known = cases.iter().position(|case| case.name == name);
        let index = known.unwrap_or_else(|| {
            cases.push(Measured { name, title: name, ..Measured::default() });
            cases.len() - 1
        });
        &mut cases[index]
    }
}

impl<'a> Scenario<'a> {
    /// The cases that are not points of a curve.
    pub fn single(&self) -> impl Iterator<Item = &Measured<'a>> {
        self.cases.iter().filter(|case| case.point.is_none())
    }

    pub fn curves(&self) -> Vec<Curve<'a, '_>> {
        let mut curves: Vec<Curve<'a, '_>> = Vec::new();
        for case in &self.cases {
            let Some(point) = case.point else { continue };
            let same = |it: &&mut Curve<'_, '_>| it.name == point.curve && it.unit == point.unit;
            match curves.iter_mut().find(same) {
                Some(curve) => curve.points.push((point.x, case)),
                None => curves.push(Curve {
                    name: &point.curve,
                    unit: &point.unit,
                    points: vec![(point.x, case)],
                }),
            }
        }
        for curve in &mut curves {
            curve.points.sort_by(|(x, _), (other, _)| x.total_cmp(other));
        }
        curves
    }
}

impl<'a> Measured<'a> {
    fn add_run(&mut self, run: &'a Run) {
        match self.clients.iter_mut().find(|client| client.name == run.client) {
            Some(client) => client.runs.push(run),
            None => {
                self.clients.push(Client { name: &run.client, role: run.role, runs: vec![run] })
            }
        }
    }
}

impl<'a> Curve<'a, '_> {
    /// Every client of its points, by role.
    pub fn clients(&self) -> Vec<(&'a str, Role)> {
        let mut clients: Vec<(&str, Role)> = Vec::new();
        for client in self.points.iter().flat_map(|(_, case)| &case.clients) {
            if !clients.iter().any(|(name, _)| *name == client.name) {
                clients.push((client.name, client.role));
            }
        }
        clients.sort_by_key(|(_, role)| *role);
        clients
    }

    /// The figures of a client at the points that have one.
    pub fn line(
        &self,
        client: &str,
        figure: impl Fn(&Client<'_>) -> Option<Spread>,
    ) -> Vec<(f64, Spread)> {
        let at = |case: &Measured<'_>| {
            case.clients.iter().find(|it| it.name == client).and_then(&figure)
        };
        self.points.iter().filter_map(|(x, case)| Some((*x, at(case)?))).collect()
    }

    /// Whether a client loads more at the last point than at the first, so that its time should grow.
    pub fn work_grows(&self) -> bool {
        let bytes = |client: &Client<'_>| {
            client.bytes().map(|bytes| Spread { low: bytes, median: bytes, high: bytes })
        };
        self.clients().iter().any(|(client, _)| {
            let line = self.line(client, bytes);
            line.first().zip(line.last()).is_some_and(|((_, near), (_, far))| {
                near.median > 0.0 && far.median >= 2.0 * near.median
            })
        })
    }
}
