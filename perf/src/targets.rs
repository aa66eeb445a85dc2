//! The targets of `targets.toml`; the scenarios measure their figures.

use crate::records::Target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// All of them, without figures, in the order of the summary.
#[allow(clippy::expect_used, reason = "a test parses the same text")]
pub static SPECS: LazyLock<Vec<Target>> = LazyLock::new(|| {
    let tables: BTreeMap<String, Vec<Target>> =
        toml::from_str(include_str!("../targets.toml")).expect("targets.toml is valid");
    tables.into_values().flatten().collect()
});

/// Its position in the summary; an unknown one is last.
pub fn place(id: &str) -> usize {
    SPECS.iter().position(|spec| spec.id == id).unwrap_or(SPECS.len())
}

/// The one called `id`.
pub fn spec(id: &str) -> Option<&'static Target> {
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
