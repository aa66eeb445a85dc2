//! The stream of tensors: takes what the engines bring into place and gives it out, tensor by tensor.

use super::{Started, Summary};
use crate::checkpoint::Checkpoint;
use crate::engine::Completion;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Device, Order};
use crate::plan::Plan;
use crate::tensor::{LoadedTensors, Tensor};
use crate::timeline::Timeline;
use futures_core::Stream;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The tensors of a load, as an iterator or (with the `futures` traits) a stream.
///
/// After an error it ends. Dropping it stops the load and waits until no read is in flight, which
/// takes as long as the storage needs to answer what was already asked (milliseconds on a disk);
/// tensors that were taken stay valid.
pub struct TensorStream {
    plan: Arc<Plan>,
    started: Started,
    order: Order,
    /// What is in place and waits for its turn (in file order only), by its first position.
    early: BTreeMap<usize, LoadedTensors>,
    next_position: usize,
    /// What is being given out.
    current: Option<LoadedTensors>,
    progress: Progress,
    delivered_tensors: usize,
    cast_tensors: usize,
    device_bytes: BTreeMap<Device, u64>,
    began: Instant,
    ended: Option<Instant>,
}

impl TensorStream {
    pub(super) fn new(plan: Arc<Plan>, started: Started, order: Order, began: Instant) -> Self {
        let progress = Progress { done: Arc::default(), total_bytes: plan.delivered_bytes() };
        Self {
            plan,
            started,
            order,
            early: BTreeMap::new(),
            next_position: 0,
            current: None,
            progress,
            delivered_tensors: 0,
            cast_tensors: 0,
            device_bytes: BTreeMap::new(),
            began,
            ended: None,
        }
    }

    /// The checkpoint that is being loaded.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        self.plan.checkpoint()
    }

    /// How many tensors it gives in all.
    pub fn tensor_count(&self) -> usize {
        self.plan.tensor_count()
    }

    /// Fails unless all tensors of the host fit into the ring at once: who keeps them would wait for
    /// ever.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] with both sizes.
    pub fn check_holds_all(&self) -> Result<()> {
        let needed = self.plan.host_slots_bytes();
        match self.plan.limit_bytes() {
            Some(limit) if self.plan.host_ring_bytes() < needed => Err(Error::new(
                ErrorKind::MemoryLimit,
                format!(
                    "loading all tensors needs {needed} bytes (in whole blocks) but the memory \
                     limit is {limit}; stream them, or raise the limit"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// A handle to watch the load from elsewhere, for a progress bar.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// A handle that cancels the load from another thread.
    #[cfg(feature = "capi")]
    pub(crate) fn cancel_handle(&self) -> crate::engine::CancelHandle {
        self.started.running.cancel_handle()
    }

    /// What was done so far; final once the stream has ended.
    pub fn summary(&self) -> Summary {
        let took = self.ended.unwrap_or_else(Instant::now).duration_since(self.began);
        Summary {
            bytes: self.progress.done_bytes(),
            tensors: self.delivered_tensors,
            cast_tensors: self.cast_tensors,
            device_bytes: self.device_bytes.clone(),
            seconds: took.as_secs_f64(),
            memory_limit_bytes: self.plan.limit_bytes(),
            ring_bytes: self.started.ring_bytes,
            ..Summary::of(&self.started.running)
        }
    }

    /// What the load's memory did, and when, until now; `None` unless that was
    /// [asked for](crate::Loader::timeline).
    pub fn timeline(&self) -> Option<Timeline> {
        self.started.running.recorder().map(|recorder| recorder.timeline())
    }

    /// The ring, for tests that look for leaks.
    #[cfg(test)]
    pub(crate) fn ring(&self) -> std::sync::Weak<crate::ring::Ring> {
        self.started.running.ring().map_or_else(std::sync::Weak::new, Arc::downgrade)
    }

    /// The next tensor of what is being given out.
    fn take(&mut self) -> Option<Tensor> {
        let current = self.current.as_mut()?;
        let Some(position) = current.positions.next() else {
            self.current = None; // the storage lives on in its tensors alone
            return None;
        };
        let index = self.plan.tensors()[position];
        let info = &self.plan.checkpoint().tensors()[index as usize];
        let start = current.starts.of(position, info);
        let cast = self.plan.cast_of(info);
        let checkpoint = Arc::clone(self.plan.checkpoint());
        let tensor = Tensor::new(checkpoint, index, current.storage.clone(), start).cast(cast);
        let bytes = tensor.len_bytes() as u64;
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        self.delivered_tensors += 1;
        self.note_delivery();
        self.cast_tensors += usize::from(cast.is_some());
        *self.device_bytes.entry(tensor.device()).or_default() += bytes;
        Some(tensor)
    }

    /// Takes down when the first and the last tensor were handed out.
    fn note_delivery(&self) {
        let (number, count) = (self.delivered_tensors, self.plan.tensor_count());
        if number != 1 && number != count {
            return;
        }
        let Some(recorder) = self.started.running.recorder() else { return };
        if number == 1 {
            recorder.event("first tensor", String::new());
        }
        if number == count {
            recorder.event("last tensor", String::new());
        }
    }

    /// Takes in what an engine completed, or its error. False when the load is over.
    fn accept(&mut self, done: Option<Result<Completion>>) -> Result<bool> {
        match done.transpose()? {
            Some(Completion::Tensors(ready)) => {
                self.early.insert(ready.positions.start, ready);
                Ok(true)
            }
            Some(Completion::Request { .. }) => Ok(true), // loads make no requests
            None => {
                if self.ended.is_none() {
                    self.started.running.check_verified()?;
                }
                Ok(false)
            }
        }
    }

    /// Goes on to what comes next, if it is there.
    fn advance(&mut self) {
        let next = match self.order {
            Order::Completion => self.early.pop_first(),
            Order::File => self.early.remove_entry(&self.next_position),
        };
        if let Some((_, ready)) = next {
            self.next_position = ready.positions.end;
            self.current = Some(ready);
        }
    }

    fn end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
        self.started.running.stop();
    }

    /// What follows from one answer of the queue: an item, the end, or "look again".
    fn step(&mut self, done: Option<Result<Completion>>) -> Poll<Option<Result<Tensor>>> {
        match self.accept(done) {
            Ok(true) => {
                self.advance();
                self.take().map_or(Poll::Pending, |tensor| Poll::Ready(Some(Ok(tensor))))
            }
            Ok(false) => {
                self.end();
                Poll::Ready(None)
            }
            Err(error) => {
                self.early.clear();
                self.end();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// A tensor that is there already, without asking whether another one has come.
    ///
    /// In contrast to `next`, nothing takes this for waiting.
    pub fn at_hand(&mut self) -> Option<Tensor> {
        loop {
            if let Some(tensor) = self.take() {
                return Some(tensor);
            }
            self.advance();
            self.current.as_ref()?;
        }
    }
}

impl Iterator for TensorStream {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(tensor) = self.at_hand() {
                return Some(Ok(tensor));
            }
            let done = self.started.running.pop();
            if let Poll::Ready(item) = self.step(done) {
                return item;
            }
        }
    }
}

impl Stream for TensorStream {
    type Item = Result<Tensor>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(tensor) = this.at_hand() {
                return Poll::Ready(Some(Ok(tensor)));
            }
            let done = ready!(this.started.running.poll_pop(cx));
            if let Poll::Ready(item) = this.step(done) {
                return Poll::Ready(item);
            }
        }
    }
}

impl fmt::Debug for TensorStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorStream")
            .field("tensors", &self.tensor_count())
            .field("delivered", &self.delivered_tensors)
            .finish_non_exhaustive()
    }
}

/// How far a load is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    done: Arc<AtomicU64>,
    total_bytes: u64,
}

impl Progress {
    /// Bytes of the tensors handed out so far.
    pub fn done_bytes(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes of all tensors of the load.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}
