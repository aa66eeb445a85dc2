//! The time format of AWS.

use reqsign_core::time::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// `time` in whole seconds.
pub(super) fn second(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or_default();
    Timestamp::from_second(seconds).unwrap_or_default()
}

/// Parses `2023-12-01T00:00:00Z` (RFC 3339). Old caches of the AWS command line write `UTC` for `Z`.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    text.trim().replace("UTC", "Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_parsed_and_formatted() {
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
