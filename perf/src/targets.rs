//! The targets of `targets.toml`; the scenarios measure their figures.

use crate::records::{Bound, Target};
use serde::Deserialize;
use std::sync::LazyLock;

/// A target, as it was set before anything was measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub id: String,
    pub part: String,
    pub sentence: String,
    pub bound: Bound,
    pub target: f64,
}

#[derive(Deserialize)]
struct Specs {
    target: Vec<Spec>,
}

/// All of them, in the order of the summary.
#[allow(clippy::expect_used, reason = "a test parses the same text")]
pub static SPECS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let specs: Specs =
        toml::from_str(include_str!("../targets.toml")).expect("targets.toml is valid");
    specs.target
});

impl Spec {
    /// The record of the target with its figure, or with the reason why there is none.
    pub fn met(
        &self,
        figure: Option<f64>,
        interval: Option<(f64, f64)>,
        note: Option<String>,
    ) -> Target {
        let (id, part, sentence) = (self.id.clone(), self.part.clone(), self.sentence.clone());
        let (low, high) = interval.unzip();
        Target {
            id,
            part,
            sentence,
            bound: self.bound,
            target: self.target,
            figure,
            low,
            high,
            note,
        }
    }
}

/// Its position in the summary; an unknown one is last.
pub fn place(id: &str) -> usize {
    SPECS.iter().position(|spec| spec.id == id).unwrap_or(SPECS.len())
}

/// The one called `id`.
pub fn spec(id: &str) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| spec.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_sides_are_right() {
        let mut ids: Vec<_> = SPECS.iter().map(|spec| &spec.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), SPECS.len());
        let reached = |id, figure| spec(id).unwrap().met(Some(figure), None, None).is_reached();
        assert_eq!(reached("engine.tiny", 2.0), Some(true));
        assert_eq!(reached("engine.tiny", 2.1), Some(false));
        assert_eq!(reached("gpu.disk", 0.9), Some(false));
        assert_eq!(spec("gpu.disk").unwrap().met(None, None, None).is_reached(), None);
    }

    #[test]
    fn a_target_within_the_interval_is_close() {
        let met = |low, high| spec("engine.tiny").unwrap().met(Some(1.9), Some((low, high)), None);
        assert!(met(1.8, 2.1).is_close() && !met(1.8, 1.95).is_close());
    }
}
