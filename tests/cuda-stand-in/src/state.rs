//! Everything there is, behind one lock: contexts, and what belongs to them.
//!
//! Worker threads and waiting calls wait for [`CHANGED`]; the bytes themselves are copied outside
//! the lock. Objects are told apart by handles that are never given twice in a process, so that the
//! use of a destroyed one is always seen.

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
    pub(crate) initialised: bool,
    pub(crate) orders: Option<Arc<Orders>>,
    /// How often each function was called, and each function's work submitted.
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
    /// It takes time to create; who else retains it meanwhile waits.
    pub(crate) ready: bool,
    /// The error of work that failed: from then on the answer of every call.
    pub(crate) failed: Option<CUresult>,
    /// Operations that worker threads are at.
    pub(crate) running: usize,
    /// The stream of the calls that name none, from the first such call on.
    pub(crate) default_stream: Option<usize>,
}

/// What an object of a context has in common with the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    pub(crate) context: usize,
    /// Its release was tried and answered an error: it is not the caller's leak.
    pub(crate) given_up: bool,
}

impl Owned {
    pub(crate) fn by(context: usize) -> Self {
        Owned { context, given_up: false }
    }
}

/// What a handle stands for.
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
    /// Where handles are: no program has memory there.
    const BASE: usize = 0x7EEE << 48;

    /// A handle never given before.
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

    /// Rings the alarm for a handle that is not of a live object of this kind.
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
            initialised: false,
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

    /// The orders in force: those that the environment gave when the first context was retained.
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

    /// Forgets all that the next contexts are not to see.
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

    /// The error that the context's failed work left, if any did.
    pub(crate) fn failed(&self, context: usize) -> Option<CUresult> {
        self.contexts.get(&context).and_then(|context| context.failed)
    }
}

/// Locks the state, also after a panic: an alarm is to ring in any case.
pub(crate) fn lock() -> Locked {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something changed, or for `most`.
pub(crate) fn wait(state: Locked, most: Duration) -> Locked {
    CHANGED.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
}

/// Wakes all who wait.
pub(crate) fn changed() {
    CHANGED.notify_all();
}
