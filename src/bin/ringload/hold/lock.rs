//! Reads files into the page cache and locks them there, with several threads that take blocks in the
//! order of the files.

use crate::failure::Outcome;
use ringload::internals::{HeldCheckpoint, spawn_scoped};
use ringload::{Cancellation, Error, ErrorKind};
use ringload_measure::system::cores;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What one call reads and locks.
const BLOCK_BYTES: u64 = 8 << 20;
/// A disk is busy with the reads of so many blocks.
const THREADS_MAX: usize = 4;

/// How much of each file is held.
#[derive(Debug)]
pub struct Shares(Vec<u64>);

impl Shares {
    /// The files of these lengths, in their order, as far as `budget` bytes go.
    pub fn new(files: impl Iterator<Item = u64>, budget: Option<u64>) -> Self {
        let shares = files.scan(budget.unwrap_or(u64::MAX), |left, len_bytes| {
            let share = len_bytes.min(*left);
            *left -= share;
            Some(share)
        });
        Self(shares.collect())
    }

    /// How much of each file is held, in bytes.
    pub fn of_files(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// How much is held of all files.
    pub fn bytes(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The blocks of all shares: files by their number, and ranges of bytes in them.
    fn blocks(&self) -> Vec<(usize, Range<u64>)> {
        let of_file = |(file, &len): (usize, &u64)| {
            let starts = (0..len).step_by(BLOCK_BYTES as usize);
            starts.map(move |start| (file, start..(start + BLOCK_BYTES).min(len)))
        };
        self.0.iter().enumerate().flat_map(of_file).collect()
    }
}

/// Reads and locks `shares` of the files of `held`.
///
/// # Errors
/// The first error of a file, or that of `cancellation`.
pub fn hold(held: &HeldCheckpoint, shares: &Shares, cancellation: &Cancellation) -> Outcome {
    let (blocks, next) = (shares.blocks(), AtomicUsize::new(0));
    let work = || {
        while let Some((file, range)) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if cancellation.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "stopped before everything was held"));
            }
            let outcome = held.hold(*file, range.clone());
            if outcome.is_err() {
                next.store(blocks.len(), Ordering::Relaxed); // the other threads need not go on
                return outcome;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = cores().clamp(2, THREADS_MAX) - 1;
        let helpers: Vec<_> =
            (0..threads).map_while(|_| spawn_scoped(scope, "ringload-lock", work).ok()).collect();
        let outcomes =
            std::iter::once(work()).chain(helpers.into_iter().map(|helper| {
                helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }));
        // All have to end, whichever has failed.
        outcomes.collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_on_the_files_in_their_order() {
        let shares = |budget| Shares::new([10, 0, 30, 5].into_iter(), budget);
        assert_eq!(shares(None).0, [10, 0, 30, 5]);
        assert_eq!(shares(Some(25)).0, [10, 0, 15, 0]);
        assert_eq!(shares(Some(0)).bytes(), 0);
        let shares = Shares::new([BLOCK_BYTES + 1, 0, 7].into_iter(), None);
        let blocks = [(0, 0..BLOCK_BYTES), (0, BLOCK_BYTES..BLOCK_BYTES + 1), (2, 0..7)];
        assert_eq!(shares.blocks(), blocks);
    }
}
