//! The metrics of this crate, emitted through the `metrics` facade. Install any recorder to read
//! them.
//!
//! | name | kind | labels | meaning |
//! | --- | --- | --- | --- |
//! | `ringload_read_bytes_total` | counter | `source`, `path` | bytes read, by kind of source (`file`, `http`, `s3`, `gcs`, `azure`, `hub`; `cache` for an object that is completely cached on disk) and by read path (`direct`, `buffered`, `mapped`, `http`, `gds`) |
//! | `ringload_read_seconds` | histogram | `source`, `path` | duration of one read operation, in seconds |
//! | `ringload_slots_in_use` | gauge | | slots that are being filled or held by tensors |
//! | `ringload_downgrades_total` | counter | `from`, `to` | fallbacks to a slower path (for example `direct` to `buffered`) |
//! | `ringload_device_bytes_total` | counter | `device` | bytes of tensors loaded to a GPU (`cuda:0`), before casts |
//! | `ringload_retries_total` | counter | `reason` | retried reads and requests, by reason (`interrupted`, `connect`, `reset`, `throttled`, ...) |
//! | `ringload_export_copied_bytes_total` | counter | `reason` | bytes of tensors that were copied for another framework, by reason (`requested`, `alignment`) |

use std::time::Duration;

pub(crate) fn read(source: &'static str, path: &'static str, bytes: u64, took: Duration) {
    let labels = [("source", source), ("path", path)];
    metrics::counter!("ringload_read_bytes_total", &labels).increment(bytes);
    metrics::histogram!("ringload_read_seconds", &labels).record(took);
}

pub(crate) fn slots_in_use(slots: usize) {
    metrics::gauge!("ringload_slots_in_use").set(slots as f64);
}

pub(crate) fn downgrade(from: &'static str, to: &'static str) {
    metrics::counter!("ringload_downgrades_total", "from" => from, "to" => to).increment(1);
}

pub(crate) fn device_bytes(device: String, bytes: u64) {
    metrics::counter!("ringload_device_bytes_total", "device" => device).increment(bytes);
}

pub(crate) fn retry(reason: &'static str) {
    metrics::counter!("ringload_retries_total", "reason" => reason).increment(1);
}

pub(crate) fn export_copied(reason: &'static str, bytes: u64) {
    metrics::counter!("ringload_export_copied_bytes_total", "reason" => reason).increment(bytes);
}
