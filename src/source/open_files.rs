//! How many connections a load may have: a constant, and what the limit of open files permits.

use nix::sys::resource::{Resource, getrlimit};

/// The most connections of a load that adapts their number.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// As many connections are tried under any limit.
const CONNECTIONS_MIN: usize = 4;

/// How many connections the limit of open files (`ulimit -n`) permits: all but a quarter of the files,
/// or 64, which are left to the rest of the process.
pub(crate) fn connections_allowed() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(files - (files / 4).max(64).min(files))
        .unwrap_or(usize::MAX)
        .max(CONNECTIONS_MIN)
}
