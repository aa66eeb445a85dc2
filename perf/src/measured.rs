//! The runs of one case, and the figures that follow from them.

use crate::records::{Figure, Role, Run};
use ringload_measure::stats::{self, Estimate};

/// Runs by client, in the order in which clients came first.
#[derive(Debug, Default)]
pub struct Measured {
    clients: Vec<(String, Vec<Run>)>,
}

impl Measured {
    pub fn add(&mut self, run: Run) {
        match self.clients.iter_mut().find(|(name, _)| *name == run.client) {
            Some((_, runs)) => runs.push(run),
            None => self.clients.push((run.client.clone(), vec![run])),
        }
    }

    /// Their names and roles.
    pub fn clients(&self) -> impl Iterator<Item = (&str, Role)> {
        self.clients.iter().filter_map(|(name, runs)| Some((name.as_str(), runs.first()?.role)))
    }

    pub fn runs(&self, client: &str) -> &[Run] {
        self.clients.iter().find(|(name, _)| name == client).map_or(&[], |(_, runs)| runs)
    }

    /// The figures of a client's turns; `None` if it did not run.
    pub fn of(&self, client: &str, figure: impl Fn(&Run) -> f64) -> Option<Estimate> {
        stats::estimate(&self.runs(client).iter().map(figure).collect::<Vec<_>>())
    }

    /// The ratio between the figures of two clients, turn by turn.
    pub fn ratio(&self, own: &str, other: &str, figure: Figure) -> Option<Estimate> {
        self.over(own, &[other], figure)
    }

    /// The same, over the lowest of several clients in each turn. `None` as well if their figures are
    /// zero, such as the CPU time of a computed ideal.
    pub fn over(&self, own: &str, others: &[&str], figure: Figure) -> Option<Estimate> {
        let figures =
            |client| self.runs(client).iter().map(|run| figure.of(run)).collect::<Vec<_>>();
        let mut least: Option<Vec<f64>> = None;
        let is_comparable = |other: &Vec<f64>| other.iter().any(|figure| *figure > 0.0);
        for other in others.iter().map(|other| figures(other)).filter(is_comparable) {
            least = Some(match least {
                Some(least) => std::iter::zip(least, other).map(|(a, b)| a.min(b)).collect(),
                None => other,
            });
        }
        stats::estimate(&stats::ratios(&figures(own), &least?))
    }

    /// The difference between the figures of two clients, turn by turn.
    pub fn more(&self, own: &str, other: &str, figure: impl Fn(&Run) -> f64) -> Option<Estimate> {
        let pairs = std::iter::zip(self.runs(own), self.runs(other));
        stats::estimate(&pairs.map(|(own, other)| figure(own) - figure(other)).collect::<Vec<_>>())
    }

    /// The peak memory of a client, in MiB.
    pub fn peak_mib(&self, client: &str) -> Option<f64> {
        let peak = self.runs(client).iter().filter_map(|run| run.peak_rss_bytes).max()?;
        Some(peak as f64 / f64::from(1 << 20))
    }

    /// The noise: the difference between a client and its duplicate. 0 if there is no duplicate.
    pub fn noise(&self, figure: Figure) -> f64 {
        let again = self.clients().find(|(_, role)| *role == Role::Control).map(|(name, _)| name);
        let pair = again.and_then(|again| Some((again, again.strip_suffix(", again")?)));
        let ratio = pair.and_then(|(again, own)| self.ratio(again, own, figure));
        ratio.map_or(0.0, |ratio| (ratio.median - 1.0).abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload_measure::figures::Figures;

    fn measured(rows: &[(&str, Role, &[f64])]) -> Measured {
        let case = crate::scenario::case("s", "c", String::new());
        let mut measured = Measured::default();
        for (client, role, seconds) in rows {
            for (turn, &seconds) in seconds.iter().enumerate() {
                let figures = Figures {
                    bytes: 1_000_000_000,
                    seconds,
                    peak_rss_bytes: Some((turn as u64) << 20),
                    ..Figures::default()
                };
                measured.add(Run::of(&case, client, *role, turn, figures));
            }
        }
        measured
    }

    #[test]
    fn figures_are_taken_turn_by_turn() {
        let it = measured(&[
            ("own", Role::Own, &[1.0, 8.0, 1.0]),
            ("own, again", Role::Control, &[1.1, 8.8, 1.1]),
            ("a", Role::Limit, &[1.0, 4.0, 3.0]),
            ("b", Role::Limit, &[2.0, 8.0, 2.0]),
        ]);
        let ratio = it.over("own", &["a", "b", "absent"], Figure::Seconds).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (1.0, 0.5, 2.0));
        assert_eq!(it.ratio("own", "a", Figure::CpuSecondsPerGigabyte), None);
        assert!((it.noise(Figure::Seconds) - 0.1).abs() < 1e-9);
        assert_eq!(it.more("b", "a", |run| run.seconds).unwrap().median, 1.0);
        assert_eq!(it.peak_mib("a"), Some(2.0));
        assert!(it.over("own", &["absent"], Figure::Seconds).is_none());
    }
}
