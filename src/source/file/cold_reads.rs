//! How many reads are made at a time by threads, of files that are not in the page cache and refuse
//! direct I/O, or are read directly through FUSE.
//!
//! Such a read waits for its file system for most of its time (FUSE, SMB, a sandbox), so more of
//! them bring more bytes, up to a number that only the file system knows. A window lasts as long as
//! one round of reads. While the rate of a window is [`GAIN`] times the best one before, the number
//! of reads is doubled. When it is not, the number stays.

use crate::sync::Mutex;
use std::time::Instant;

/// The first number of reads.
const START: usize = 16;
/// The highest one. Mounts serve up to about 128 requests at a time.
pub(crate) const READS_MAX: usize = 128;
/// How many times higher the rate is after an increase that is followed by another one.
const GAIN: f64 = 1.15;

/// The number of reads at a time, of one load.
#[derive(Debug, Default)]
pub(crate) struct ColdReads {
    state: Mutex<ColdReadsState>,
}

#[derive(Debug, Default)]
struct ColdReadsState {
    /// 0 before the first read.
    at_a_time: usize,
    /// When the window began.
    began: Option<Instant>,
    /// What was read in the window.
    reads: usize,
    bytes: usize,
    /// The best rate of a window, in bytes a second.
    best: f64,
    /// Whether the last increase did not help.
    settled: bool,
}

impl ColdReads {
    /// How many reads are made at a time; 0 while the load has none.
    pub fn at_a_time(&self) -> usize {
        self.state.lock().at_a_time
    }

    /// Counts a read that begins at `now`. Returns whether the number of reads has changed.
    pub fn begin(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_first = state.at_a_time == 0;
        state.at_a_time = state.at_a_time.max(START);
        state.began.get_or_insert(now);
        is_first
    }

    /// Counts a read of `bytes` that ended at `now`. Returns whether the number of reads has changed.
    pub fn end(&self, bytes: usize, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.reads += 1;
        state.bytes += bytes;
        let Some(began) = state.began.filter(|_| state.reads >= state.at_a_time) else {
            return false;
        };
        let seconds = now.duration_since(began).as_secs_f64().max(f64::EPSILON);
        let rate = state.bytes as f64 / seconds;
        (state.reads, state.bytes, state.began) = (0, 0, Some(now));
        let grows = !state.settled && rate >= state.best * GAIN && state.at_a_time < READS_MAX;
        state.settled = !grows;
        state.best = state.best.max(rate);
        if grows {
            state.at_a_time = (state.at_a_time * 2).min(READS_MAX);
        }
        grows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Runs rounds of reads of 2 MiB on a file system that takes 20 ms for each and makes `served` at a
    /// time. Returns the final number.
    fn settle(served: usize) -> usize {
        let reads = ColdReads::default();
        let mut now = Instant::now();
        assert_eq!(reads.at_a_time(), 0);
        assert!(reads.begin(now) && !reads.begin(now));
        for _ in 0..20 {
            let number = reads.at_a_time();
            now += Duration::from_millis(20) * number.div_ceil(served) as u32;
            (0..number).for_each(|_| _ = reads.end(2 << 20, now));
        }
        reads.at_a_time()
    }

    #[test]
    fn reads_grow_as_long_as_more_of_them_bring_more() {
        assert_eq!(settle(1), 2 * START, "the first round has nothing to be compared with");
        assert_eq!(settle(START), 2 * START);
        assert_eq!(settle(4 * START), 8 * START);
        assert_eq!(settle(1000), READS_MAX);
    }
}
