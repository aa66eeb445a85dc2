//! The table of all targets; the scenarios measure their figures.

use crate::records::{Bound, Target};

/// A target, as it was set before anything was measured.
#[derive(Debug)]
pub struct Spec {
    pub id: &'static str,
    pub part: &'static str,
    pub sentence: &'static str,
    pub bound: Bound,
    pub target: f64,
}

const ENGINE: &str = "engine";
const STORES: &str = "object stores";
const CACHE: &str = "local file cache";
const PYTHON: &str = "Python and C";
const GPU: &str = "gpus";

const fn at_most(
    id: &'static str,
    part: &'static str,
    sentence: &'static str,
    target: f64,
) -> Spec {
    Spec { id, part, sentence, bound: Bound::AtMost, target }
}

const fn at_least(
    id: &'static str,
    part: &'static str,
    sentence: &'static str,
    target: f64,
) -> Spec {
    Spec { id, part, sentence, bound: Bound::AtLeast, target }
}

/// All of them, in the order of the summary.
pub const SPECS: &[Spec] = &[
    at_most("engine.streamed.wall", ENGINE, "cold, streamed: time, of the better fio's", 1.05),
    at_most("engine.resident.wall", ENGINE, "cold, resident: time, of the better fio's", 1.05),
    at_most("engine.streamed.cpu", ENGINE, "cold, streamed: CPU-s/GB", 0.12),
    at_most("engine.resident.cpu", ENGINE, "cold, resident: CPU-s/GB", 0.12),
    at_most("engine.mapped.cpu", ENGINE, "cold, resident, mapped: CPU-s/GB", 0.12),
    at_most(
        "engine.warm.mapped",
        ENGINE,
        "warm, mapped: time, of mmap and touching every page",
        1.1,
    ),
    at_least("engine.warm.owned", ENGINE, "warm, owned: speed, of memcpy into fresh memory", 0.9),
    at_most("engine.capped.peak", ENGINE, "limit of 256 MiB: MiB of peak memory above it", 64.0),
    at_most("engine.capped.wall", ENGINE, "limit of 256 MiB: time, of no limit", 1.05),
    at_most(
        "engine.tiny",
        ENGINE,
        "200,000 tensors of 4 KiB: time, of reading the file plain",
        2.0,
    ),
    at_most(
        "engine.planning",
        ENGINE,
        "1,000,000 tensors in 500 shards, opened and planned: s",
        2.0,
    ),
    at_most(
        "engine.planning.memory",
        ENGINE,
        "memory a tensor, of 1,000,000 over 250,000 tensors",
        1.1,
    ),
    at_most("http.cpu", STORES, "http: CPU-s/GB", 0.33),
    at_most("http.curl", STORES, "http: CPU time, of the cheaper curl's", 0.75),
    at_most("https.cpu", STORES, "https: CPU-s/GB", 0.68),
    at_most("https.curl", STORES, "https: CPU time, of the cheaper curl's", 1.0),
    at_most("s3.cpu", STORES, "s3: CPU-s/GB", 0.40),
    at_most("s3.runai", STORES, "s3: CPU time, of Run:ai's", 0.25),
    at_most(
        "memory.above",
        STORES,
        "peak memory: MiB above limit + 32 MiB + 64 KiB a connection, at most of all",
        0.0,
    ),
    at_most("verify.http", STORES, "checksumming, http: CPU-s/GB more", 0.06),
    at_most("verify.https", STORES, "checksumming, https: CPU-s/GB more", 0.06),
    at_most("cache.first.resident", CACHE, "first load: time, of the same without the cache", 1.10),
    at_most(
        "cache.first.capped",
        CACHE,
        "first load under 256 MiB: time, of the same without",
        1.10,
    ),
    at_most("cache.second.resident", CACHE, "second load: time, of the plain file's", 1.05),
    at_most(
        "cache.second.capped",
        CACHE,
        "second load under 256 MiB: time, of the plain file's",
        1.05,
    ),
    at_most(
        "cache.peak",
        CACHE,
        "peak memory: MiB above limit + 32 MiB + 64 KiB a connection",
        0.0,
    ),
    at_most("python.cold.wall", PYTHON, "cold: time, of Run:ai's package", 0.8),
    at_most("python.cold.cpu", PYTHON, "cold: CPU time, of Run:ai's package", 0.4),
    at_most("python.warm.wall", PYTHON, "warm: time, of Run:ai's package", 0.4),
    at_most("python.overhead", PYTHON, "100,000 tensors iterated: s over the command", 1.0),
    at_most("python.dropin", PYTHON, "Run:ai's own unit tests that fail on the C library", 0.0),
    at_least("gpu.memory", GPU, "from tmpfs and the page cache: speed, of pinned copies", 0.90),
    at_least("gpu.disk", GPU, "from the disk: speed, of direct reads", 0.97),
    at_most("gpu.adapter", GPU, "adapter of 100 MiB: time, of context, plain read and copy", 1.25),
    at_most("gpu.tiny", GPU, "100,000 tensors of 4 KiB: time, of one tensor", 2.0),
    at_least("gpu.kernels", GPU, "crc64 and cast: speed, of a copy on the GPU", 0.5),
];

impl Spec {
    /// The record of the target with its figure, or with the reason why there is none.
    pub fn met(
        &self,
        figure: Option<f64>,
        interval: Option<(f64, f64)>,
        note: Option<String>,
    ) -> Target {
        Target {
            id: self.id.into(),
            part: self.part.into(),
            sentence: self.sentence.into(),
            bound: self.bound,
            target: self.target,
            figure,
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
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
        let mut ids: Vec<_> = SPECS.iter().map(|spec| spec.id).collect();
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
