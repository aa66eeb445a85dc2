//! Percent-encodes names for URLs: everything but the unreserved characters of RFC 3986 (section 2.3).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Encodes `name` as one segment of a URL's path, or as a value in its query.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

/// Encodes `key` as the path of a URL; slashes are kept.
pub(crate) fn path(key: &str) -> String {
    utf8_percent_encode(key, RESERVED_IN_PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_once() {
        assert_eq!(segment("a/b c+%41ä"), "a%2Fb%20c%2B%2541%C3%A4");
        assert_eq!(path("a/b c+%41ä~._-"), "a/b%20c%2B%2541%C3%A4~._-");
    }
}
