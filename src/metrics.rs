//! Every metric this crate emits, through the `metrics` facade. Install any recorder to see them.
//!
//! | name | kind | labels | meaning |
//! | --- | --- | --- | --- |
//! | `ringload_read_bytes_total` | counter | `source`, `path` | bytes read, by kind of source (`file`, `http`, `s3`, `gcs`, `azure`, `hub`; `cache` for an object that is all on disk) and by how they came (`direct`, `buffered`, `mapped`, `http`, `gds`) |
//! | `ringload_read_seconds` | histogram | `source`, `path` | time of one read operation, in seconds |
//! | `ringload_slots_in_use` | gauge | | slots that are being filled or held by tensors |
//! | `ringload_downgrades_total` | counter | `from`, `to` | steps taken down the ladder (e.g. `direct` to `buffered`) |
//! | `ringload_device_bytes_total` | counter | `device` | bytes of tensors brought to a GPU (`cuda:0`), as stored |
//! | `ringload_retries_total` | counter | `reason` | what was asked for again, by reason (`interrupted`, `connect`, `reset`, `throttled`, ...) |
//! | `ringload_export_copied_bytes_total` | counter | `reason` | bytes of tensors that were copied for another framework, by reason (`asked`, `alignment`) |

use crate::options::Device;
use crate::source::Via;
use std::time::Duration;

pub(crate) fn read(source: &'static str, via: Via, bytes: u64, took: Duration) {
    let labels = [("source", source), ("path", via.as_str())];
    metrics::counter!("ringload_read_bytes_total", &labels).increment(bytes);
    metrics::histogram!("ringload_read_seconds", &labels).record(took);
}

pub(crate) fn slots_in_use(slots: usize) {
    metrics::gauge!("ringload_slots_in_use").set(slots as f64);
}

pub(crate) fn downgrade(from: &'static str, to: &'static str) {
    metrics::counter!("ringload_downgrades_total", "from" => from, "to" => to).increment(1);
}

pub(crate) fn device_bytes(device: Device, bytes: u64) {
    metrics::counter!("ringload_device_bytes_total", "device" => device.to_string())
        .increment(bytes);
}

pub(crate) fn retry(reason: &'static str) {
    metrics::counter!("ringload_retries_total", "reason" => reason).increment(1);
}

pub(crate) fn export_copied(reason: &'static str, bytes: u64) {
    metrics::counter!("ringload_export_copied_bytes_total", "reason" => reason).increment(bytes);
}
