//! Writes pages to the cache in the background.
//!
//! Two threads take the pages that windows share: while one waits for the disk, the other one
//! submits the next pages. The checksums of pages were computed when their bytes arrived, so pages
//! that a consumer changes before they are written are left missing ([`Entry::write`]). The threads
//! start with the first page to write, and end when the cache is closed and everything is written.
//! When they have been idle for [`IDLE`], they sync the written files, and rename the data files of
//! complete entries.

use super::cache_dir::CacheDir;
use super::entry::Entry;
use super::eviction::{Eviction, evict_to, total_bytes};
use super::fetch_lock::FetchLock;
use super::files::EntryFiles;
use super::pages::PageBytes;
use crate::error::option;
use crate::source::LoadCounters;
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

const THREADS: usize = 2;

/// Pages in memory that a load is about to reuse are written within this time or dropped. So a slow
/// disk delays a load by at most this time and does not slow it down.
const WRITE_DELAY_MAX: Duration = Duration::from_millis(100);

/// The written files are synced when there has been nothing to write for this long.
const IDLE: Duration = Duration::from_millis(100);

/// The queue of pages to write, and the threads that write them.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Whether loads wait for the disk instead of leaving pages out.
    waits_for_disk: bool,
    /// [`WRITE_DELAY_MAX`], except in tests.
    pub write_delay_max: Duration,
}

/// Pages to write.
pub(super) struct WriteJob {
    pub entry: Arc<Entry>,
    pub files: Arc<EntryFiles>,
    pub first_page: u64,
    /// The checksum of each page, computed when the bytes arrived.
    pub checksums: Vec<u64>,
    pub bytes: PageBytes,
    /// Held until the pages are written or given up.
    pub lock: Option<FetchLock>,
    pub reservation: Option<Reservation>,
}

/// Counts bytes of a load's memory as waiting to be written, until it is dropped.
pub(super) struct Reservation {
    counters: Arc<LoadCounters>,
    bytes: u64,
    /// When the load reuses the memory: the bytes are dropped if they are not written by then.
    deadline: Option<Instant>,
}

impl Reservation {
    /// Whether the deadline has passed. If so, counts the bytes as left out.
    fn is_overdue(&self) -> bool {
        let is_overdue = self.deadline.is_some_and(|deadline| deadline < Instant::now());
        if is_overdue {
            self.counters.left_out(self.bytes);
        }
        is_overdue
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.counters.release(self.bytes);
    }
}

struct Shared {
    cache: Arc<CacheDir>,
    eviction: Eviction,
    queue: Mutex<WriteQueue>,
    /// Notified when there is work, and when the cache is closed.
    work: Condvar,
    /// Notified when work is done.
    done: Condvar,
}

#[derive(Default)]
struct WriteQueue {
    jobs: VecDeque<WriteJob>,
    /// Entries that were written to since they were committed.
    uncommitted: Vec<Arc<Entry>>,
    busy_threads: usize,
    threads: usize,
    /// How many callers wait in `flush`. While there are any, the threads sync at once instead of
    /// after [`IDLE`].
    flushes: usize,
    closed: bool,
}

/// The next step of a writer thread.
enum Work {
    Write(WriteJob),
    Commit(Vec<Arc<Entry>>),
}

impl Writer {
    /// The writer of `cache`, which may grow to `limit_bytes`.
    pub fn new(cache: Arc<CacheDir>, limit_bytes: Option<u64>, waits_for_disk: bool) -> Self {
        let eviction = Eviction::new(Arc::clone(&cache), limit_bytes);
        let (queue, work, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { cache, eviction, queue, work, done });
        Self { shared, waits_for_disk, write_delay_max: WRITE_DELAY_MAX }
    }

    /// Reserves `bytes` of the writer's share of a load's memory. When the share is used up, counts
    /// the bytes as left out and returns `None`.
    pub fn reserve(&self, counters: &Arc<LoadCounters>, bytes: u64) -> Option<Reservation> {
        while !counters.hold(bytes) {
            if !self.waits_for_disk || self.shared.cache.stopped_writing() {
                counters.left_out(bytes);
                return None;
            }
            // The end of each write notifies `done`.
            drop(self.shared.done.wait_for(self.shared.queue.lock(), IDLE));
        }
        let is_limited = counters.reuses_memory() && !self.waits_for_disk;
        let deadline = Instant::now().checked_add(self.write_delay_max).filter(|_| is_limited);
        Some(Reservation { counters: Arc::clone(counters), bytes, deadline })
    }

    /// Queues pages to be written.
    pub fn push(&self, job: WriteJob) {
        let mut queue = self.shared.queue.lock();
        while queue.threads < THREADS {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("ringload-cache".to_owned());
            if let Err(refusal) = thread.spawn(move || shared.run()) {
                if queue.threads == 0 {
                    drop(queue);
                    self.shared.cache.stop_writing("start a thread to write the cache", &refusal);
                    return;
                }
                break;
            }
            queue.threads += 1;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Waits at most `timeout` until everything is written and committed. Returns false on a
    /// timeout.
    pub fn flush(&self, timeout: Option<Duration>) -> bool {
        let mut queue = self.shared.queue.lock();
        queue.flushes += 1;
        self.shared.work.notify_all();
        let unfinished = |queue: &mut WriteQueue| !queue.is_done();
        let mut queue = match timeout {
            Some(timeout) => self.shared.done.wait_while_for(queue, unfinished, timeout),
            None => self.shared.done.wait_while(queue, unfinished),
        };
        queue.flushes -= 1;
        queue.is_done()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl WriteQueue {
    fn is_done(&self) -> bool {
        self.jobs.is_empty() && self.busy_threads == 0 && self.uncommitted.is_empty()
    }
}

impl Shared {
    fn run(&self) {
        while let Some(work) = self.next() {
            let work = || match work {
                Work::Write(job) => self.write(job),
                Work::Commit(entries) => entries.iter().for_each(|entry| {
                    entry.commit().unwrap_or_else(|e| self.cache.stop_writing("write", &e));
                }),
            };
            // A panic loses cached pages and nothing else.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                let bug = io::Error::other("a thread panicked; this is a bug");
                self.cache.stop_writing("write", &bug);
            }
            self.queue.lock().busy_threads -= 1;
            self.done.notify_all();
        }
    }

    /// Waits for work; `None` when the cache is closed and everything is done.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        let mut is_idle = false;
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy_threads += 1;
                return Some(Work::Write(job));
            }
            let has_uncommitted = !queue.uncommitted.is_empty();
            if has_uncommitted && (is_idle || queue.flushes > 0 || queue.closed) {
                queue.busy_threads += 1;
                return Some(Work::Commit(std::mem::take(&mut queue.uncommitted)));
            }
            if queue.closed {
                queue.threads -= 1;
                return None;
            }
            if has_uncommitted {
                (queue, is_idle) = self.work.wait_for(queue, IDLE);
            } else {
                queue = self.work.wait(queue);
                is_idle = false;
            }
        }
    }

    fn write(&self, job: WriteJob) {
        let WriteJob { entry, files, first_page, checksums, bytes, lock, reservation } = job;
        let len = bytes.len() as u64;
        if self.cache.stopped_writing() || reservation.as_ref().is_some_and(|r| r.is_overdue()) {
            return;
        }
        if !files.writable {
            self.cache.stop_writing("write", &io::Error::from_raw_os_error(libc::EACCES));
            return;
        }
        if !self.eviction.make_room(len) {
            self.cache.warn(format!(
                "the cache has reached its size limit and all of its entries are in use, so the \
                 rest is not cached; raise the limit with {}",
                option("cache_size")
            ));
            return;
        }
        let write = || entry.write(&files, first_page, &checksums, &bytes);
        let outcome = write().or_else(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => {
                // Evicts twice as much as needed, so that the next write need not evict again.
                evict_to(&self.cache, total_bytes(&self.cache).saturating_sub(2 * len));
                write()
            }
            _ => Err(error),
        });
        drop((bytes, lock, reservation));
        match outcome {
            Ok(()) => {
                let mut queue = self.queue.lock();
                if !queue.uncommitted.iter().any(|other| Arc::ptr_eq(other, &entry)) {
                    queue.uncommitted.push(entry);
                }
            }
            Err(refusal) => self.cache.stop_writing("write", &refusal),
        }
    }
}
