//! Requests to a cloud's metadata server, which exists only on that cloud's machines. On other
//! machines a request may never be answered, so its time limit is short there.

use crate::sys::read_small_text;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

/// The time limit on the cloud's own machines, whose metadata server is slow while they boot.
const TIMEOUT_IN_CLOUD: Duration = Duration::from_secs(20);
/// The time limit on other machines.
const TIMEOUT_ELSEWHERE: Duration = Duration::from_secs(1);

/// The output of `request`, or `None` where it exceeds its time limit. `in_cloud` says that this is
/// one of the cloud's machines.
pub(super) async fn request<T>(in_cloud: bool, request: impl Future<Output = T>) -> Option<T> {
    let timeout = if in_cloud { TIMEOUT_IN_CLOUD } else { TIMEOUT_ELSEWHERE };
    tokio::time::timeout(timeout, request).await.ok()
}

/// Whether the firmware field `name` (a file of `/sys/class/dmi/id`) starts with `text`.
pub(super) fn firmware_says(name: &str, text: &str) -> bool {
    let value = read_small_text(&Path::new("/sys/class/dmi/id").join(name), "firmware field");
    value.is_ok_and(|value| value.trim().starts_with(text))
}
