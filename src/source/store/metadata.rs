//! Asking a cloud's metadata server, which only that cloud's machines have: elsewhere the question
//! may go unanswered, and must not cost much time.

use std::future::Future;
use std::time::Duration;

/// On the cloud's own machines: its metadata server may be slow, in a machine that has just
/// started.
const PATIENT: Duration = Duration::from_secs(20);
/// Elsewhere.
const HASTY: Duration = Duration::from_secs(1);

/// What `question` brings, or `None` where that takes too long. `at_home` says that this machine is
/// one of the cloud's.
pub(super) async fn ask<T>(at_home: bool, question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(if at_home { PATIENT } else { HASTY }, question).await.ok()
}

/// Whether the machine's firmware has `name` (a file of `/sys/class/dmi/id`) say `text`.
pub(super) fn firmware_says(name: &str, text: &str) -> bool {
    let told = std::fs::read_to_string(format!("/sys/class/dmi/id/{name}"));
    told.is_ok_and(|told| told.trim().starts_with(text))
}
