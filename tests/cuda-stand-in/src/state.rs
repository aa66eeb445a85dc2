//! The state of the stand-in behind one lock: contexts and their objects.
//!
//! Worker threads and waiting calls wait for [`CHANGED`]. Bytes are copied without the lock.
//! Handles of objects are never reused in a process, so that the use of a destroyed object is
//! always detected.

use crate::event::Event;
use crate::file::Files;
use crate::host::Registration;
use crate::memory::{Allocation, Freed};
use crate::module::{Function, Module};
use crate::orders::Orders;
use crate::result::CUresult;
use crate::stream::Stream;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static STATE: Mutex<State> = Mutex::new(State::new());
static CHANGED: Condvar = Condvar::new();

pub(crate) type Locked = MutexGuard<'static, State>;

#[derive(Debug)]
pub(crate) struct State {
    /// The process that started the driver; 0 before.
    pub(crate) process: u32,
    pub(crate) orders: Option<Arc<Orders>>,
    /// The number of calls of each function, and of submissions of its work.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) submissions: BTreeMap<&'static str, u64>,
    pub(crate) copies_to_device: u64,
    pub(crate) contexts: BTreeMap<usize, Context>,
    pub(crate) streams: BTreeMap<usize, Stream>,
    pub(crate) streams_created: u64,
    pub(crate) events: BTreeMap<usize, Event>,
    pub(crate) modules: BTreeMap<usize, Module>,
    pub(crate) functions: BTreeMap<usize, Function>,
    /// By their first address.
    pub(crate) allocations: BTreeMap<u64, Allocation>,
    pub(crate) registrations: BTreeMap<u64, Registration>,
    pub(crate) freed: Freed,
    pub(crate) files: Files,
}

/// A device's primary context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) device: i32,
    pub(crate) references: usize,
    /// Creation takes time; other threads that retain the context meanwhile wait.
    pub(crate) ready: bool,
    /// The error of failed work, which every later call returns.
    pub(crate) failed: Option<CUresult>,
    /// The number of operations that worker threads are running.
    pub(crate) running: usize,
    /// The default stream, from the first call that uses it on.
    pub(crate) default_stream: Option<usize>,
}

/// The common part of a context's objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    pub(crate) context: usize,
    /// Whether its release failed, so that it does not count as leaked.
    pub(crate) given_up: bool,
}

impl Owned {
    pub(crate) fn by(context: usize) -> Self {
        Owned { context, given_up: false }
    }
}

/// The object of a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    File,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Context, Kind::Stream, Kind::Event, Kind::Module, Kind::Function, Kind::File];
    /// The range of handles, in which no program has memory.
    const BASE: usize = 0x7EEE << 48;

    /// A handle that was never returned before.
    pub(crate) fn new_handle(self) -> usize {
        static GIVEN: AtomicUsize = AtomicUsize::new(1);
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        Self::BASE | (self as usize) << 40 | number << 4
    }

    fn of(handle: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| Self::BASE | (*kind as usize) << 40 == handle >> 40 << 40)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Context => "context",
            Kind::Stream => "stream",
            Kind::Event => "event",
            Kind::Module => "module",
            Kind::Function => "function",
            Kind::File => "cuFile handle",
        }
    }

    /// Raises the alarm for a handle that does not belong to a live object of this kind.
    pub(crate) fn missing(self, function: &str, handle: usize) -> ! {
        let wanted = self.name();
        match Kind::of(handle) {
            Some(kind) if kind == self => alarm!("{function}: use of a destroyed {wanted}"),
            Some(kind) => alarm!("{function}: a {} in the place of the {wanted}", kind.name()),
            None => alarm!("{function}: {handle:#x} is no {wanted}"),
        }
    }
}

impl State {
    const fn new() -> Self {
        State {
            process: 0,
            orders: None,
            counts: BTreeMap::new(),
            submissions: BTreeMap::new(),
            copies_to_device: 0,
            contexts: BTreeMap::new(),
            streams: BTreeMap::new(),
            streams_created: 0,
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            allocations: BTreeMap::new(),
            registrations: BTreeMap::new(),
            freed: Freed::new(),
            files: Files::new(),
        }
    }

    /// The configuration, read from the environment when the first context was retained.
    pub(crate) fn orders(&mut self) -> Arc<Orders> {
        match &self.orders {
            Some(orders) if !self.contexts.is_empty() => Arc::clone(orders),
            _ => {
                let orders = Arc::new(Orders::read());
                self.orders = Some(Arc::clone(&orders));
                orders
            }
        }
    }

    /// Resets the state that later contexts must not see.
    pub(crate) fn begin_anew(&mut self) {
        self.orders = None;
        self.counts.clear();
        self.submissions.clear();
        self.copies_to_device = 0;
        self.streams_created = 0;
        self.freed.drop_all();
    }

    pub(crate) fn context_of_device(&self, device: i32) -> Option<usize> {
        self.contexts
            .iter()
            .find(|(_, context)| context.device == device)
            .map(|(handle, _)| *handle)
    }

    /// The error of the context's failed work, if any.
    pub(crate) fn failed(&self, context: usize) -> Option<CUresult> {
        self.contexts.get(&context).and_then(|context| context.failed)
    }
}

/// Locks the state, even after a panic, so that an alarm can be raised in any case.
pub(crate) fn lock() -> Locked {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a change, at most for `most`.
pub(crate) fn wait(state: Locked, most: Duration) -> Locked {
    CHANGED.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
}

/// Wakes all waiting threads.
pub(crate) fn changed() {
    CHANGED.notify_all();
}
