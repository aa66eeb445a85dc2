//! How many connections a load may have: a constant, and what the limit of open files permits.

use nix::sys::resource::{Resource, getrlimit};

/// The most connections of a load that adapts their number.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// As many connections are tried under any limit.
const CONNECTIONS_MIN: usize = 4;

/// How many connections the limit of open files (`ulimit -n`) permits: all but a quarter of the files,
/// or 64 of them, or half of them if these are fewer, which are left to the rest of the process.
pub(crate) fn connections_allowed() -> usize {
    allowed(open_files_max())
}

/// The limit of open files.
pub(crate) fn open_files_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

fn allowed(files: u64) -> usize {
    let left = (files / 4).max((files / 2).min(64));
    usize::try_from(files - left).unwrap_or(usize::MAX).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 64 files, 4 were used for connections.
    #[test]
    fn most_files_are_for_connections_and_some_for_the_rest_of_the_process() {
        let files = [0, 16, 64, 128, 256, 1024, u64::MAX];
        let most = usize::MAX - usize::MAX / 4;
        assert_eq!(files.map(allowed), [4, 8, 32, 64, 192, 768, most]);
    }
}
