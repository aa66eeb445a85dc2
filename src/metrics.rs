//! The metrics of this crate, emitted through the `metrics` facade. Install any recorder to read
//! them, with their units and descriptions.
//!
//! | name | kind | labels | unit | meaning |
//! | --- | --- | --- | --- | --- |
//! | `ringload_load_seconds` | histogram | `source`, `outcome` | seconds | duration of a load, a stream or a `read_into`, from the call to its end, with the time that its caller took |
//! | `ringload_loaded_bytes_total` | counter | `source`, `outcome` | bytes | bytes that loads have handed to their callers |
//! | `ringload_read_bytes_total` | counter | `source`, `path` | bytes | bytes that were read |
//! | `ringload_read_seconds` | histogram | `source`, `path` | seconds | duration of one read operation |
//! | `ringload_slots_in_use` | gauge | | count | slots that are being filled or held by tensors |
//! | `ringload_downgrades_total` | counter | `from`, `to` | count | fallbacks to a slower path (for example `direct` to `buffered`) |
//! | `ringload_device_bytes_total` | counter | `device` | bytes | bytes of tensors loaded to a GPU (`cuda:0`), before casts |
//! | `ringload_retries_total` | counter | `reason` | count | retried reads and requests (`interrupted`, `connect`, `reset`, `throttled`, ...) |
//! | `ringload_export_copied_bytes_total` | counter | `reason` | bytes | bytes of tensors that were copied for another framework (`requested`, `alignment`) |
//!
//! | label | values |
//! | --- | --- |
//! | `source` | the kind of source: `file`, `http`, `s3`, `gcs`, `azure`, `hub`; `cache` for an object that is completely cached on disk. Of a load from several, all of them: `file+s3`. Empty where a load failed before its sources were known |
//! | `outcome` | `ok`, or the kind of the error: `not_found`, `memory_limit` and so on ([`ErrorKind::as_str`](crate::ErrorKind::as_str)). `cancelled` also for a load that was dropped before its end |
//! | `path` | the read path: `direct`, `buffered`, `mapped`, `http`, `gds` |

use metrics::Unit;
use std::time::Duration;

#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

struct Metric {
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    meaning: &'static str,
}

const LOAD_SECONDS: &str = "ringload_load_seconds";
const LOADED_BYTES: &str = "ringload_loaded_bytes_total";
const READ_BYTES: &str = "ringload_read_bytes_total";
const READ_SECONDS: &str = "ringload_read_seconds";
const SLOTS_IN_USE: &str = "ringload_slots_in_use";
const DOWNGRADES: &str = "ringload_downgrades_total";
const DEVICE_BYTES: &str = "ringload_device_bytes_total";
const RETRIES: &str = "ringload_retries_total";
const EXPORT_COPIED_BYTES: &str = "ringload_export_copied_bytes_total";

/// All metrics, in the order of the tables of this file and of docs/observability.md.
const ALL: [Metric; 9] = {
    use MetricKind::{Counter, Gauge, Histogram};
    const fn metric(
        name: &'static str,
        kind: MetricKind,
        unit: Unit,
        meaning: &'static str,
    ) -> Metric {
        Metric { name, kind, unit, meaning }
    }
    [
        metric(
            LOAD_SECONDS,
            Histogram,
            Unit::Seconds,
            "duration of a load, a stream or a `read_into`, from the call to its end, with the time \
             that its caller took",
        ),
        metric(LOADED_BYTES, Counter, Unit::Bytes, "bytes that loads have handed to their callers"),
        metric(READ_BYTES, Counter, Unit::Bytes, "bytes that were read"),
        metric(READ_SECONDS, Histogram, Unit::Seconds, "duration of one read operation"),
        metric(SLOTS_IN_USE, Gauge, Unit::Count, "slots that are being filled or held by tensors"),
        metric(
            DOWNGRADES,
            Counter,
            Unit::Count,
            "fallbacks to a slower path (for example `direct` to `buffered`)",
        ),
        metric(
            DEVICE_BYTES,
            Counter,
            Unit::Bytes,
            "bytes of tensors loaded to a GPU (`cuda:0`), before casts",
        ),
        metric(
            RETRIES,
            Counter,
            Unit::Count,
            "retried reads and requests (`interrupted`, `connect`, `reset`, `throttled`, ...)",
        ),
        metric(
            EXPORT_COPIED_BYTES,
            Counter,
            Unit::Bytes,
            "bytes of tensors that were copied for another framework (`requested`, `alignment`)",
        ),
    ]
};

/// Tells the recorder the units and descriptions of all metrics. Each load does so when it begins. A
/// program that shows them before its first load calls this after it has installed its recorder.
pub fn describe() {
    for Metric { name, kind, unit, meaning } in ALL {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, meaning),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

/// How a load ended.
pub(crate) struct LoadEnd<'a> {
    pub source: &'a str,
    pub outcome: &'static str,
    pub bytes: u64,
    pub seconds: f64,
}

pub(crate) fn load_ended(end: &LoadEnd<'_>) {
    let labels = [("source", end.source.to_owned()), ("outcome", end.outcome.to_owned())];
    metrics::histogram!(LOAD_SECONDS, &labels).record(end.seconds);
    metrics::counter!(LOADED_BYTES, &labels).increment(end.bytes);
}

pub(crate) fn read(source: &'static str, path: &'static str, bytes: u64, took: Duration) {
    let labels = [("source", source), ("path", path)];
    metrics::counter!(READ_BYTES, &labels).increment(bytes);
    metrics::histogram!(READ_SECONDS, &labels).record(took);
}

pub(crate) fn slots_in_use(slots: usize) {
    metrics::gauge!(SLOTS_IN_USE).set(slots as f64);
}

pub(crate) fn downgrade(from: &'static str, to: &'static str) {
    metrics::counter!(DOWNGRADES, "from" => from, "to" => to).increment(1);
}

pub(crate) fn device_bytes(device: String, bytes: u64) {
    metrics::counter!(DEVICE_BYTES, "device" => device).increment(bytes);
}

pub(crate) fn retry(reason: &'static str) {
    metrics::counter!(RETRIES, "reason" => reason).increment(1);
}

pub(crate) fn export_copied(reason: &'static str, bytes: u64) {
    metrics::counter!(EXPORT_COPIED_BYTES, "reason" => reason).increment(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A metric that is added, or whose meaning changes, is looked up in one of these tables.
    #[test]
    fn the_tables_list_all_metrics_with_their_units_and_meanings() {
        let page = include_str!("../docs/observability.md");
        let module = include_str!("metrics.rs");
        let module: String = module
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .fold(String::new(), |text, line| text + line + "\n");
        for text in [page, &module] {
            let rows: Vec<_> =
                text.lines().filter(|line| line.starts_with("| `ringload_")).collect();
            assert_eq!(rows.len(), ALL.len(), "{rows:#?}");
            for (row, Metric { name, kind, unit, meaning }) in rows.iter().zip(&ALL) {
                let kind = match kind {
                    MetricKind::Counter => "counter",
                    MetricKind::Gauge => "gauge",
                    MetricKind::Histogram => "histogram",
                };
                let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
                let of_row = [cells[0], cells[1], cells[3], cells[4]];
                assert_eq!(of_row, [&format!("`{name}`"), kind, unit.as_str(), meaning]);
            }
        }
    }
}
