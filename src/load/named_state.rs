//! The state of a load whose tensors are asked for by name (see [`named`](super::named)).

use super::expected_order::{ABSENT, ExpectedOrder, places_of};
use super::kept_tensors::KeptTensors;
use super::loader::Loader;
use super::stream::TensorStream;
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::options::{MemoryLimit, Order};
use crate::plan::{Selection, YieldOrder, not_loaded};
use crate::ring::Ring;
use crate::source::{Progress, stopped};
use crate::sync::Mutex;
use crate::tensor::Tensor;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// After this many jumps in a row nothing is read ahead.
const JUMPS_MAX: u32 = 2;
/// How long a load waits for memory before it is restarted with the tensor that is asked for. The caller
/// waits as long as the hold timeout says.
const STUCK_AFTER: Duration = Duration::from_millis(250);

/// The load, and what is known of its tensors.
pub(super) struct NamedState {
    loader: Loader,
    load: TensorStream,
    /// The position in the plan of the load of each tensor of the checkpoint; `ABSENT` if it has none.
    positions: Vec<u32>,
    expected: ExpectedOrder,
    handed_out: Vec<bool>,
    /// What loads before this one have read ahead.
    kept: KeptTensors,
    /// The ring, if it does not hold all tensors.
    tight: Option<TightRing>,
    /// The statistics of the loads before this one.
    before: Summary,
    /// The tensor for which the load was restarted last.
    target: Option<u32>,
    /// How often it was restarted since a tensor was on its way.
    jumps: u32,
    /// Since when the caller asks for a tensor that does not fit beside what it holds.
    stuck_since: Option<Instant>,
    /// Whether the load has failed.
    failed: bool,
}

struct TightRing {
    ring: Arc<Ring>,
    limit_bytes: u64,
    hold_timeout: Duration,
}

/// The callers that wait for tensors of one load.
#[derive(Default)]
pub(super) struct WaitingCallers(Mutex<Vec<Waker>>);

impl Wake for WaitingCallers {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl WaitingCallers {
    /// Adds a caller, who is woken once.
    pub fn add(&self, caller: &Waker) {
        let mut callers = self.0.lock();
        if !callers.iter().any(|other| other.will_wake(caller)) {
            callers.push(caller.clone());
        }
    }
}

impl NamedState {
    /// Starts a load of `checkpoint` by `loader`.
    pub fn start(mut loader: Loader, checkpoint: Arc<Checkpoint>) -> Result<Self> {
        let hold_timeout = loader.options.hold_timeout;
        loader.options.hold_timeout = hold_timeout.min(STUCK_AFTER);
        let guessed = loader.guessed_order(&checkpoint);
        if let Some(guessed) = &guessed {
            let name = |index: u32| checkpoint.tensors()[index as usize].name();
            loader.options.order = Order::names(guessed.all().into_iter().map(name));
        }
        let load = loader.stream_checkpoint(Arc::clone(&checkpoint))?;
        let plan = load.plan();
        let sizes = plan.sizes();
        let is_tight = sizes.host_ring_bytes < sizes.host_slots_bytes;
        let tight = load.first_ring().zip(sizes.limit_bytes).filter(|_| is_tight);
        let tight = tight.map(|(ring, limit_bytes)| TightRing {
            ring: Arc::clone(ring),
            limit_bytes,
            hold_timeout,
        });
        let count = checkpoint.tensors().len();
        let told = || match plan.yielded() {
            Some(yielded) => yielded.iter().map(|&at| plan.tensors()[at as usize]).collect(),
            None => plan.tensors().to_vec(),
        };
        Ok(Self {
            positions: places_of(plan.tensors(), count),
            expected: guessed.unwrap_or_else(|| ExpectedOrder::told(&told(), count)),
            handed_out: vec![false; count],
            kept: KeptTensors::default(),
            tight,
            before: Summary::default(),
            target: None,
            jumps: 0,
            stuck_since: None,
            failed: false,
            loader,
            load,
        })
    }

    /// Looks for the tensor `index`, and lets the load go on.
    pub fn poll(
        &mut self,
        index: u32,
        cx: &mut Context<'_>,
        waiting: &Arc<WaitingCallers>,
    ) -> Poll<Result<Tensor>> {
        if !self.expected.contains(index) {
            return Poll::Ready(Err(not_loaded(self.name(index))));
        }
        if self.handed_out[index as usize] {
            return Poll::Ready(Err(self.handed_out_before(index)));
        }
        loop {
            if let Some(tensor) = self.take(index) {
                Arc::clone(waiting).wake(); // others may wait for the turn of this one
                return Poll::Ready(Ok(tensor));
            }
            if self.failed {
                return Poll::Ready(Err(stopped()));
            }
            // The arrival of another one that was asked for is what this call waits for, too.
            if !self.awaits_another(index) && self.is_out_of_reach(index) {
                if let Err(error) = self.restart(index) {
                    return Poll::Ready(Err(error));
                }
                Arc::clone(waiting).wake(); // what others wait for may be kept
                continue;
            }
            match self.load.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(outcome) => {
                    if let Err(error) = outcome.map(drop).or_else(|error| self.is_stuck(error)) {
                        self.failed = true;
                        return Poll::Ready(Err(self.load.report().fail(error)));
                    }
                    // The load has ended without the tensor, and is restarted for it.
                    if let Err(error) = self.restart(index) {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    fn take(&mut self, index: u32) -> Option<Tensor> {
        let position = self.positions[index as usize];
        let tensor = match self.kept.take(index) {
            Some(tensor) => {
                self.load.hand_out(std::slice::from_ref(&tensor));
                tensor
            }
            None => self.load.take_at(position as usize).filter(|_| position != ABSENT)?,
        };
        self.handed_out[index as usize] = true;
        self.expected.note(index);
        self.stuck_since = None;
        if self.target != Some(index) {
            self.jumps = 0;
        }
        Some(tensor)
    }

    /// Whether the load was restarted for another tensor that has not come yet.
    fn awaits_another(&self, index: u32) -> bool {
        let Some(target) = self.target.filter(|&target| target != index) else { return false };
        let position = self.positions[target as usize];
        !self.handed_out[target as usize] && !self.load.has_loaded(position as usize)
    }

    /// Whether the ring cannot hold the tensor beside those that come before it and were not asked for,
    /// and those that are kept.
    fn is_out_of_reach(&self, index: u32) -> bool {
        let Some(tight) = &self.tight else { return false };
        let position = self.positions[index as usize];
        if position == ABSENT {
            return true;
        }
        let is_kept = |index: u32| !self.handed_out[index as usize];
        let needed = self.load.plan().bytes_until(position as usize, is_kept);
        needed + self.kept.bytes() > tight.ring.capacity() as u64
    }

    /// Decides about a load that has failed: with `Ok`, it is to be restarted, as it waited for memory.
    fn is_stuck(&mut self, error: Error) -> Result<()> {
        let Some(tight) = self.tight.as_ref().filter(|_| error.kind() == ErrorKind::MemoryLimit)
        else {
            return Err(error);
        };
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        if since.elapsed() < tight.hold_timeout { Ok(()) } else { Err(error) }
    }

    /// Begins another load, with the tensor `index` first.
    fn restart(&mut self, index: u32) -> Result<()> {
        let Some(tight) = &self.tight else {
            return Err(Error::new(ErrorKind::Io, "a tensor was not loaded; this is a bug"));
        };
        let loader = &self.loader;
        if loader.verifies_sources() {
            return Err(self.beyond_limit(index, tight.limit_bytes));
        }
        self.load.check_finite()?;
        tracing::debug!(tensor = self.name(index), "restarting the load with this tensor");
        tight.ring.pause(); // its memory is used again at once
        self.kept.add(self.load.end_now());
        self.before.add(&self.load.summary());
        let is_left = |index: u32| !self.handed_out[index as usize];
        let is_next = self.expected.jump(index, is_left);
        if self.stuck_since.is_none() {
            self.jumps = if is_next { 0 } else { self.jumps + 1 };
        }
        let free_bytes = match self.stuck_since {
            Some(_) => u64::MAX,
            None if self.kept.has(index) => 0,
            None => self.slot_bytes_max(index),
        };
        self.kept.give_up(&tight.ring, free_bytes, self.expected.key_from(index));
        let reads_ahead = self.jumps <= JUMPS_MAX;
        let is_wanted = |it| is_left(it) && !self.kept.has(it) && (reads_ahead || it == index);
        let left = self.expected.left_from(index, is_wanted);
        let tensors = self.load.checkpoint().tensors();
        let names = left.iter().map(|&it| tensors[it as usize].name().to_owned());
        let names: Arc<[String]> = names.collect();
        let (limit, ring) = (MemoryLimit::Bytes(tight.limit_bytes), Arc::clone(&tight.ring));
        let selection = Selection {
            names: Some(names.to_vec()),
            order: Some(YieldOrder { names, reads_in_file_order: false }),
            slices: loader.options.selection.slices.clone(),
            ..Selection::default()
        };
        let checkpoint = Arc::clone(self.load.checkpoint());
        ring.resume();
        let report = Arc::clone(self.load.report());
        self.load = loader.stream_again(checkpoint, limit, &selection, &ring, report)?;
        self.positions = places_of(self.load.plan().tensors(), self.positions.len());
        self.target = Some(index);
        Ok(())
    }

    /// The most bytes of the ring that the slots with this tensor take.
    fn slot_bytes_max(&self, index: u32) -> u64 {
        let (plan, sizes) = (self.load.plan(), self.load.plan().sizes());
        let info = &plan.checkpoint().tensors()[index as usize];
        let stored = info.len_bytes();
        let packed = plan.first_part().map_or(0, |_| stored);
        let copied = plan.cast_of(info).map_or(packed, |cast| cast.target_bytes(stored));
        (stored + copied).max(sizes.extent_bytes) + 4 * sizes.block_bytes
    }

    fn name(&self, index: u32) -> &str {
        self.load.checkpoint().tensors()[index as usize].name()
    }

    /// Ends the load, after its checks if it has some.
    pub fn finish(mut self) -> Result<Summary> {
        if self.failed {
            return Err(stopped());
        }
        if self.loader.checks_bytes() {
            self.check_the_rest()?;
        }
        self.load.report().succeed();
        Ok(self.summary())
    }

    /// Reads the tensors that were not read yet, so that they are checked.
    fn check_the_rest(&mut self) -> Result<()> {
        loop {
            let known = 0..self.handed_out.len() as u32;
            for index in known.clone().filter(|&index| self.kept.has(index)) {
                self.handed_out[index as usize] = true;
            }
            self.kept = KeptTensors::default();
            while self.load.accept().map_err(|error| self.load.report().fail(error))? {}
            for (is_read, position) in self.handed_out.iter_mut().zip(&self.positions) {
                *is_read |= *position != ABSENT;
            }
            let is_left = |index: u32| !self.handed_out[index as usize];
            let mut left = known.filter(|&it| self.expected.contains(it) && is_left(it));
            let Some(next) = left.next() else { return Ok(()) };
            self.jumps = 0;
            self.restart(next)?;
        }
    }

    pub fn progress(&self) -> Progress {
        self.load.progress()
    }

    pub fn summary(&self) -> Summary {
        let mut summary = self.before.clone();
        summary.add(&self.load.summary());
        summary
    }

    fn handed_out_before(&self, index: u32) -> Error {
        let name = self.name(index);
        let sentence = format!(
            "the tensor {name:?} was handed out before, and each is handed out once; keep a clone of it"
        );
        Error::new(ErrorKind::InvalidInput, sentence)
    }

    fn beyond_limit(&self, index: u32, limit_bytes: u64) -> Error {
        let position = self.positions[index as usize] as usize;
        let is_kept = |index: u32| !self.handed_out[index as usize];
        let sentence = format!(
            "the tensor {:?} is beyond what the memory limit of {} holds beside the tensors before it \
             that were not asked for, and checksums of whole files allow no other order; set a limit \
             of at least {}, or ask in the order of the files",
            self.name(index),
            Size(limit_bytes),
            Size(self.load.plan().bytes_until(position, is_kept))
        );
        Error::new(ErrorKind::MemoryLimit, sentence)
    }
}

impl Loader {
    /// The order in which the tensors of `checkpoint` are expected to be asked for. `None` if the caller
    /// told one, if the tensors have to be read in the order of the file, or if the memory holds all.
    fn guessed_order(&self, checkpoint: &Checkpoint) -> Option<ExpectedOrder> {
        let reads_in_file_order = self.verifies_sources() || self.reads_in_file_order(checkpoint);
        if reads_in_file_order || self.options.order != Order::Completion {
            return None;
        }
        let limit_bytes = match self.resolved_memory_limit().ok()? {
            MemoryLimit::Unlimited => return None,
            MemoryLimit::Min | MemoryLimit::MinHoldingOne => 0,
            MemoryLimit::Bytes(bytes) => bytes,
        };
        let tensors = checkpoint.tensors();
        let named =
            |index: usize| (index as u32, tensors[index].name(), tensors[index].len_bytes());
        // Its errors are those of the load, too.
        let loaded: Vec<_> = self.selected(checkpoint).ok()?.into_iter().map(named).collect();
        let is_tight = limit_bytes < loaded.iter().map(|(.., bytes)| bytes).sum::<u64>();
        let is_for_host = |name: &str| self.options.devices.device_of(name).is_host();
        let is_guessed = is_tight && loaded.iter().all(|(_, name, _)| is_for_host(name));
        is_guessed.then(|| ExpectedOrder::by_module(&loaded, tensors.len(), limit_bytes))
    }
}
