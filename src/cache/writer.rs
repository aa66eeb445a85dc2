//! Writing pages behind the loads.
//!
//! Two threads take what windows share: while one waits for the disk, the other one hands it the next
//! pages. Pages come with their seals, made when they arrived: what anybody does to their memory
//! later (tensors may be lent to writers, as Python's are) only makes them pages that count as
//! missing. They start with the first page to write and end when nobody has the cache open any
//! more and all is written. When they have nothing to do for a moment, they bring what was written
//! to the disk and give complete entries their name.

use super::claim::Claim;
use super::entry::{Entry, lock};
use super::files::Files;
use super::room;
use super::shelf::Shelf;
use crate::ring::Part;
use crate::source::LoadCounters;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const THREADS: usize = 2;

/// Memory that a load needs again waits this long for the disk, and then does without it: so a disk
/// that is too slow costs a load a moment, not its speed.
const LATE: Duration = Duration::from_millis(100);

/// Nothing to do for this long is a moment to settle what was written.
const IDLE: Duration = Duration::from_millis(100);

/// What is to be written, and the threads that do.
pub(super) struct Writer {
    shared: Arc<Shared>,
    patient: bool,
}

/// Pages to write.
pub(super) struct Job {
    pub entry: Arc<Entry>,
    pub files: Arc<Files>,
    pub first_page: u64,
    /// One a page, made when the bytes arrived.
    pub seals: Vec<u64>,
    pub bytes: Bytes,
    /// Given back when the pages are there, or will not be.
    pub claim: Option<Claim>,
    /// On the tally of the load that they are of.
    pub held: Option<Held>,
}

/// The bytes of pages.
pub(super) enum Bytes {
    /// In a slot of a load.
    Slot(Part),
    /// On their own.
    Own(Vec<u8>),
}

impl Bytes {
    pub fn len(&self) -> usize {
        match self {
            Self::Slot(part) => part.len(),
            Self::Own(bytes) => bytes.len(),
        }
    }
}

/// Bytes on a load's tally, until this is dropped.
pub(super) struct Held {
    counters: Arc<LoadCounters>,
    bytes: u64,
    /// Until when they may be, where the load needs the memory again.
    until: Option<Instant>,
}

impl Held {
    /// Whether they were held for long enough; then they count as left out.
    fn is_late(&self) -> bool {
        let late = self.until.is_some_and(|until| until < Instant::now());
        if late {
            self.counters.left_out(self.bytes);
        }
        late
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.release(self.bytes);
    }
}

struct Shared {
    shelf: Arc<Shelf>,
    state: Mutex<State>,
    /// Woken when there is work, or the end.
    work: Condvar,
    /// Woken when something was done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Written to, not settled.
    unsettled: Vec<Arc<Entry>>,
    busy: usize,
    threads: usize,
    /// How many wait for everything: nothing is to be put off.
    waiting: usize,
    closed: bool,
}

/// What a thread does next.
enum Next {
    Write(Job),
    Settle(Vec<Arc<Entry>>),
    End,
}

impl Writer {
    /// Of the cache in `shelf`. If it is `patient`, it holds loads up rather than to leave pages out.
    pub fn new(shelf: Arc<Shelf>, patient: bool) -> Self {
        let (state, work, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { shelf, state, work, done }), patient }
    }

    /// Room on a load's tally for `bytes` more; `None` where they have to be left out.
    pub fn hold(&self, counters: &Arc<LoadCounters>, bytes: u64) -> Option<Held> {
        while !counters.hold(bytes) {
            if !self.patient || self.shared.shelf.gave_up() {
                counters.left_out(bytes);
                return None;
            }
            // What is held is being written, and each end of that wakes.
            let state = self.shared.lock();
            drop(self.shared.done.wait_timeout(state, IDLE));
        }
        let until =
            Instant::now().checked_add(LATE).filter(|_| counters.reuses_memory() && !self.patient);
        Some(Held { counters: Arc::clone(counters), bytes, until })
    }

    /// Takes pages to write.
    pub fn push(&self, job: Job) {
        let mut state = self.shared.lock();
        while state.threads < THREADS {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("ringload-cache".to_owned());
            if let Err(refusal) = thread.spawn(move || shared.run()) {
                if state.threads == 0 {
                    drop(state);
                    self.shared.shelf.give_up("start a thread to write the cache", &refusal);
                    return;
                }
                break;
            }
            state.threads += 1;
        }
        state.queue.push_back(job);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Waits until all is written and settled, at most for `patience`. Whether it is.
    pub fn flush(&self, patience: Option<Duration>) -> bool {
        let end = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.shared.lock();
        state.waiting += 1;
        self.shared.work.notify_all();
        while !state.is_done() {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            let look = left.unwrap_or(Duration::from_secs(1));
            let woken = self.shared.done.wait_timeout(state, look);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        state.is_done()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.busy == 0 && self.unsettled.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn run(&self) {
        loop {
            match self.next() {
                Next::Write(job) => self.guard(|| self.write(job)),
                Next::Settle(entries) => self.guard(|| self.settle(entries)),
                Next::End => return,
            }
            self.lock().busy -= 1;
            self.done.notify_all();
        }
    }

    /// Runs `work` so that even a bug in it loses pages, and nothing else.
    fn guard(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            let bug = io::Error::other("a thread panicked; this is a bug");
            self.shelf.give_up("write", &bug);
        }
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.busy += 1;
                return Next::Write(job);
            }
            let hurry = state.waiting > 0 || state.closed;
            let unsettled = !state.unsettled.is_empty();
            if hurry && unsettled {
                return state.settle();
            }
            if state.closed {
                state.threads -= 1;
                return Next::End;
            }
            if unsettled {
                let woken = self.work.wait_timeout(state, IDLE);
                let (locked, outcome) = woken.unwrap_or_else(PoisonError::into_inner);
                state = locked;
                if outcome.timed_out() && state.queue.is_empty() && !state.unsettled.is_empty() {
                    return state.settle();
                }
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn write(&self, job: Job) {
        let Job { entry, files, first_page, seals, bytes, claim, held } = job;
        let len = bytes.len() as u64;
        if self.shelf.gave_up() || held.as_ref().is_some_and(Held::is_late) {
            return;
        }
        if !files.writable {
            self.shelf.give_up("write", &io::Error::from_raw_os_error(libc::EACCES));
            return;
        }
        if !self.shelf.room.make(&self.shelf, len) {
            self.shelf.note(
                "the cache has its full size and all in it is in use; what comes now is not \
                 cached; give it more with --cache-size"
                    .to_owned(),
            );
            return;
        }
        let write = || entry.write(&files, first_page, &seals, &bytes);
        let outcome = match write() {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let taken: u64 = room::usage(&self.shelf).iter().map(|used| used.bytes).sum();
                // Double, so that the next ones need not ask again at once.
                room::evict_to(&self.shelf, taken.saturating_sub(2 * len));
                write()
            }
            outcome => outcome,
        };
        drop((bytes, claim, held));
        match outcome {
            Ok(()) => {
                let mut state = self.lock();
                if !state.unsettled.iter().any(|other| Arc::ptr_eq(other, &entry)) {
                    state.unsettled.push(entry);
                }
            }
            Err(refusal) => self.shelf.give_up("write", &refusal),
        }
    }

    fn settle(&self, entries: Vec<Arc<Entry>>) {
        for entry in entries {
            if let Err(refusal) = entry.settle() {
                self.shelf.give_up("write", &refusal);
            }
        }
    }
}

impl State {
    fn settle(&mut self) -> Next {
        self.busy += 1;
        Next::Settle(std::mem::take(&mut self.unsettled))
    }
}
