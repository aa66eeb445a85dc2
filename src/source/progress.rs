//! The progress of calls, for programs that watch them.
//!
//! ```text
//! Progress            the counts that a program reads; of one or several calls
//!   ProgressPart      the part of one call: the bytes that it is to hand out, and those it has
//!     Arrivals        one run of engines: the bytes that they are to read, and those that arrived
//! ```
//!
//! What engines read and what the caller gets differ: casts change the length of tensors, and gaps and
//! whole blocks are read along. So the share of the bytes to read that has arrived is credited as the
//! same share of the bytes to hand out. A call that continues with another run of engines, which read
//! some bytes again, begins that run with what its caller has got. What is credited never decreases, and
//! it is complete when all bytes were handed out. All counts are atomic numbers, so that a process that
//! forks leaves no lock behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shows the progress of calls while they run, from any thread. Clones show the same.
///
/// It is made before the call begins, and given to the loader:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Progress};
///
/// let progress = Progress::new();
/// let loader = Loader::new().progress(&progress);
/// let loading = std::thread::spawn(move || loader.load(&path));
/// while !loading.is_finished() {
///     println!("{} of {} bytes", progress.done_bytes(), progress.total_bytes());
///     std::thread::sleep(std::time::Duration::from_millis(10));
/// }
/// let model = loading.join().expect("the load does not panic")?;
/// assert_eq!((progress.done_bytes(), progress.total_bytes()), (24, 24));
/// # drop(model);
/// # Ok(())
/// # }
/// ```
///
/// It counts the calls of all loaders that it was given to, and adds them up: a program that shows each
/// load by itself makes another one for each, on a clone of the loader.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<ProgressCounts>);

#[derive(Debug, Default)]
struct ProgressCounts {
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    header_bytes: AtomicU64,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many of the [`total_bytes`](Self::total_bytes) have arrived: while they are received, and
    /// not only when a tensor is complete. Bytes that are read again are not counted again.
    pub fn done_bytes(&self) -> u64 {
        self.0.done_bytes.load(Ordering::Relaxed)
    }

    /// The bytes of all tensors of a load, as they are handed out, or of all requests of
    /// [`read_into`](crate::Loader::read_into); 0 until that is known, which takes the headers.
    pub fn total_bytes(&self) -> u64 {
        self.0.total_bytes.load(Ordering::Relaxed)
    }

    /// The bytes of headers that were read to open checkpoints. They are not part of the
    /// [`total_bytes`](Self::total_bytes).
    pub fn header_bytes(&self) -> u64 {
        self.0.header_bytes.load(Ordering::Relaxed)
    }

    /// Counts a header that was read.
    pub(crate) fn header_read(&self, bytes: u64) {
        self.0.header_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The part of a call that is to hand out `total_bytes`.
    pub(crate) fn part(&self, total_bytes: u64) -> ProgressPart {
        self.0.total_bytes.fetch_add(total_bytes, Ordering::Relaxed);
        let counts = PartCounts {
            progress: self.clone(),
            total_bytes,
            credited_bytes: AtomicU64::new(0),
            delivered_bytes: AtomicU64::new(0),
        };
        ProgressPart(Arc::new(counts))
    }
}

/// The part in `progress` of a call that another program makes, and that is to hand out `total_bytes`.
pub fn progress_part(progress: &Progress, total_bytes: u64) -> ProgressPart {
    progress.part(total_bytes)
}

/// The part of one call in the progress. Clones are the same part.
#[derive(Debug, Clone)]
pub struct ProgressPart(Arc<PartCounts>);

#[derive(Debug)]
struct PartCounts {
    progress: Progress,
    total_bytes: u64,
    /// The bytes of the part that the progress has counted.
    credited_bytes: AtomicU64,
    /// The bytes that the caller has got.
    delivered_bytes: AtomicU64,
}

impl ProgressPart {
    /// Counts bytes that the caller has got.
    pub fn deliver(&self, bytes: u64) {
        let before = self.0.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.credit(before + bytes);
    }

    /// The bytes that the caller has got.
    pub fn delivered_bytes(&self) -> u64 {
        self.0.delivered_bytes.load(Ordering::Relaxed)
    }

    /// The count of a run of engines that reads `read_bytes`, of which `rest_bytes` are to be handed out
    /// after those that the caller has got.
    pub(crate) fn arrivals(&self, read_bytes: u64, rest_bytes: u64) -> Arrivals {
        Arrivals {
            part: self.clone(),
            before_bytes: self.delivered_bytes(),
            rest_bytes,
            read_bytes,
            settled_bytes: AtomicU64::new(0),
            arriving_bytes: AtomicU64::new(0),
        }
    }

    /// Counts the first `bytes` of the part, unless they were counted.
    fn credit(&self, bytes: u64) {
        let bytes = bytes.min(self.0.total_bytes);
        if self.0.credited_bytes.load(Ordering::Relaxed) >= bytes {
            return; // they usually were when they arrived
        }
        let before = self.0.credited_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.0.progress.0.done_bytes.fetch_add(bytes.saturating_sub(before), Ordering::Relaxed);
    }
}

/// The bytes that one run of engines reads.
#[derive(Debug)]
pub(crate) struct Arrivals {
    part: ProgressPart,
    /// What the caller had got when the run began.
    before_bytes: u64,
    /// What is to be handed out of what the run reads.
    rest_bytes: u64,
    read_bytes: u64,
    settled_bytes: AtomicU64,
    /// The bytes of reads that have not ended yet.
    arriving_bytes: AtomicU64,
}

impl Arrivals {
    /// Counts the bytes of a read that has ended.
    pub fn settle(&self, bytes: u64) {
        let settled = self.settled_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.credit(settled + self.arriving_bytes.load(Ordering::Relaxed));
    }

    fn arrive(&self, bytes: u64) {
        let arriving = self.arriving_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.credit(self.settled_bytes.load(Ordering::Relaxed) + arriving);
    }

    fn credit(&self, arrived_bytes: u64) {
        if self.read_bytes > 0 {
            let arrived = u128::from(arrived_bytes.min(self.read_bytes));
            let share = u128::from(self.rest_bytes) * arrived / u128::from(self.read_bytes);
            // At most `rest_bytes`.
            self.part.credit(self.before_bytes + share as u64);
        }
    }
}

/// The bytes of a read that has not ended yet. Dropping it takes them back, as they are settled when the
/// read has ended.
pub(crate) struct Arriving<'a> {
    arrivals: Option<&'a Arrivals>,
    bytes: AtomicU64,
}

impl<'a> Arriving<'a> {
    /// No bytes yet, of a run of engines that counts them if there are `arrivals`.
    pub fn new(arrivals: Option<&'a Arrivals>) -> Self {
        Self { arrivals, bytes: AtomicU64::new(0) }
    }

    /// Counts bytes that have arrived.
    pub fn arrive(&self, bytes: u64) {
        if let Some(arrivals) = self.arrivals {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            arrivals.arrive(bytes);
        }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some(arrivals) = self.arrivals {
            arrivals.arriving_bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_read_count_while_they_arrive_and_once() {
        let progress = Progress::new();
        let part = progress.part(2000);
        let arrivals = part.arrivals(1000, 2000);
        let arriving = Arriving::new(Some(&arrivals));
        arriving.arrive(300);
        assert_eq!(progress.done_bytes(), 600);
        drop(arriving);
        assert_eq!(progress.done_bytes(), 600, "it never decreases");
        arrivals.settle(300);
        assert_eq!(progress.done_bytes(), 600);
        arrivals.settle(800); // in whole blocks
        part.deliver(100);
        assert_eq!((progress.done_bytes(), progress.total_bytes()), (2000, 2000));
    }

    /// A load by names begins again with a tensor that is beyond the ring, and reads what it had read
    /// ahead once more.
    #[test]
    fn bytes_that_are_read_again_do_not_count_again() {
        let progress = Progress::new();
        let part = progress.part(1000);
        part.arrivals(1000, 1000).settle(600);
        part.deliver(100);
        assert_eq!(progress.done_bytes(), 600);
        let again = part.arrivals(900, 900);
        again.settle(500);
        assert_eq!(progress.done_bytes(), 600, "100 that the caller has, and 500 of the others");
        again.settle(400);
        assert_eq!(progress.done_bytes(), 1000);
        part.deliver(900);
        assert_eq!(progress.done_bytes(), 1000);
    }

    #[test]
    fn calls_add_up() {
        let progress = Progress::new();
        progress.clone().part(10).deliver(10);
        let part = progress.part(5);
        part.arrivals(0, 0).settle(7);
        part.deliver(2);
        progress.header_read(8);
        assert_eq!((progress.done_bytes(), progress.total_bytes()), (12, 15));
        assert_eq!(progress.header_bytes(), 8);
    }
}
