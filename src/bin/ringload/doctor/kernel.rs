//! The version of the kernel, and which of its features loads use.

use super::finding::Finding;
use ringload_measure::system::read_text;

/// The first kernel whose io_uring has the operations and fixes that loads need.
const IO_URING: Version = (5, 10);
/// The first kernel with cachestat(2), a cheap way to query the page cache.
const CACHESTAT: Version = (6, 5);

/// The first two numbers of a kernel release.
type Version = (u32, u32);

/// Examines the running kernel.
pub fn examine() -> Vec<Finding> {
    vec![finding(&read_text("/proc/sys/kernel/osrelease").unwrap_or_default())]
}

fn finding(release: &str) -> Finding {
    const TOPIC: &str = "kernel";
    let Some(version) = parse(release) else {
        return Finding::info(TOPIC, format!("unknown release '{release}'"));
    };
    if version < IO_URING {
        let fact = format!("{release}: too old for io_uring, files are read with pread");
        Finding::warn(TOPIC, fact, ["run kernel 5.10 or later, preferably 6.5 or later"])
    } else if version < CACHESTAT {
        let fact = format!("{release}: io_uring yes, cachestat no (mincore is used instead)");
        Finding::ok(TOPIC, fact)
    } else {
        Finding::ok(TOPIC, format!("{release}: io_uring yes, cachestat yes"))
    }
}

/// The numbers of a release such as `6.8.0-45-generic`.
fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse("6.8.0-45-generic"), Some((6, 8)));
        assert_eq!(parse("5.10-rc1"), Some((5, 10)));
        assert_eq!(parse("linux"), None);
        assert!(parse("5.9.1") < parse("5.10.0"));
    }

    #[test]
    fn old_kernels_are_a_shortfall() {
        assert_eq!(finding("5.4.0").level, Level::Warn);
        assert_eq!(finding("5.15.0").level, Level::Ok);
        assert!(finding("5.15.0").fact.contains("cachestat no"));
        assert!(finding("6.5.0").fact.contains("cachestat yes"));
        assert_eq!(finding("").level, Level::Info);
    }
}
