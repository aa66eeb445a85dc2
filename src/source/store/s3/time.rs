//! Times as AWS writes them.

use reqsign_core::time::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The second that `time` is in, to sign with.
pub(super) fn second(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or_default();
    Timestamp::from_second(seconds).unwrap_or_default()
}

/// Reads `2023-12-01T00:00:00Z` (RFC 3339). `UTC` at the end, as in old caches of the AWS command
/// line, means `Z`.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |rest| format!("{rest}Z"));
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_read_and_written() {
        let time = second(UNIX_EPOCH + Duration::from_millis(1_369_353_600_999));
        assert_eq!(time.format_iso8601(), "20130524T000000Z");
        for text in
            ["2013-05-24T00:00:00Z", "2013-05-24T02:00:00+02:00", " 2013-05-24T00:00:00UTC\n"]
        {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        assert_eq!((parse(""), parse("tomorrow")), (None, None));
    }
}
