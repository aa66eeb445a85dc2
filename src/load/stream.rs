//! The stream of tensors: takes the completions of the engines and yields their tensors one by one.

use super::early::EarlyTensors;
use super::report::LoadReport;
use super::start::StartedLoad;
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::engine::Completion;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::options::{Device, Order};
use crate::plan::Plan;
use crate::ring::Ring;
use crate::source::Progress;
use crate::tensor::{LoadedTensors, Offsets, Storage, Tensor};
use crate::timeline::Timeline;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

/// The tensors of a load, as an iterator. [`into_async`](Self::into_async) makes a stream for async code
/// of it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, MemoryLimit};
///
/// let loader = Loader::new().memory_limit(MemoryLimit::Bytes(64 << 20));
/// let mut stream = loader.stream(&path)?;
/// for tensor in stream.by_ref() {
///     let tensor = tensor?; // its memory is used again when it is dropped
///     println!("{} {:?}: {} bytes", tensor.name(), tensor.shape(), tensor.bytes().len());
/// }
/// assert_eq!(stream.summary().tensors, 1);
/// # Ok(())
/// # }
/// ```
///
/// The stream ends after an error. Dropping it stops the load and waits until no read is in flight,
/// which takes as long as the storage needs to complete the reads that were already issued
/// (milliseconds on a disk). Tensors that were already yielded stay valid.
pub struct TensorStream {
    plan: Arc<Plan>,
    started: StartedLoad,
    /// Whether tensors are yielded in the order of the checkpoint.
    in_file_order: bool,
    /// Tensors that are loaded but not yet due.
    early: EarlyTensors,
    /// The position that is due in file order; how many tensors were yielded in an order of names.
    next_position: usize,
    /// The tensors that are being yielded.
    current: Option<LoadedTensors>,
    report: Arc<LoadReport>,
    delivered_bytes: u64,
    delivered_tensors: usize,
    cast_tensors: usize,
    device_bytes: BTreeMap<Device, u64>,
    began: Instant,
    ended: Option<Instant>,
}

impl TensorStream {
    pub(super) fn new(
        plan: Arc<Plan>,
        started: StartedLoad,
        order: &Order,
        began: Instant,
        report: Arc<LoadReport>,
    ) -> Self {
        Self {
            plan,
            started,
            in_file_order: *order == Order::File,
            early: EarlyTensors::default(),
            next_position: 0,
            current: None,
            report,
            delivered_bytes: 0,
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

    /// How many tensors the load has in all.
    pub fn tensor_count(&self) -> usize {
        self.plan.tensor_count()
    }

    /// Fails unless all tensors for host memory fit into the ring at once. Otherwise a caller that
    /// keeps them all would run into the memory limit.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] with both sizes.
    pub fn check_holds_all(&self) -> Result<()> {
        let sizes = self.plan.sizes();
        let needed = sizes.host_slots_bytes;
        let Some(limit) = sizes.limit_bytes.filter(|_| sizes.host_ring_bytes < needed) else {
            return Ok(());
        };
        let sentence = format!(
            "loading all tensors needs {} (in whole blocks) but the memory limit is {}; stream them, \
             or raise the limit",
            Size(needed),
            Size(limit)
        );
        Err(Error::new(ErrorKind::MemoryLimit, sentence))
    }

    /// The handle that shows the load's progress: that of the [loader](crate::Loader::progress), or one
    /// of this load alone.
    pub fn progress(&self) -> Progress {
        self.report.progress().clone()
    }

    /// The statistics of the load so far, which are final once the stream has ended.
    pub fn summary(&self) -> Summary {
        let took = self.ended.unwrap_or_else(Instant::now).duration_since(self.began);
        Summary {
            bytes: self.delivered_bytes,
            tensors: self.delivered_tensors,
            cast_tensors: self.cast_tensors,
            device_bytes: self.device_bytes.clone(),
            seconds: took.as_secs_f64(),
            memory_limit_bytes: self.plan.sizes().limit_bytes,
            ring_bytes: self.started.ring_bytes,
            ..Summary::of(&self.started.handle)
        }
    }

    /// How the load's memory was used so far, and when. `None` unless a timeline was
    /// [requested](crate::Loader::timeline).
    pub fn timeline(&self) -> Option<Timeline> {
        self.started.handle.recorder().map(|recorder| recorder.timeline())
    }

    /// The load's first ring, for tests that look for leaks.
    #[cfg(test)]
    pub(crate) fn ring(&self) -> std::sync::Weak<Ring> {
        self.first_ring().map_or_else(std::sync::Weak::new, Arc::downgrade)
    }

    /// Takes the next tensor from the current loaded tensors.
    fn take(&mut self) -> Option<Tensor> {
        // After the last one, the storage lives on in its tensors alone.
        let mut current = self.current.take()?;
        let position = current.positions.next()?;
        let tensor = self.deliver(position, current.storage.clone(), &current.starts);
        self.current = Some(current);
        Some(tensor)
    }

    /// Takes the tensors that share the storage of the last one, for a caller that keeps all.
    pub(super) fn take_rest(&mut self, into: &mut Vec<Tensor>) {
        let Some(current) = self.current.take() else { return };
        let LoadedTensors { positions, storage, starts } = current;
        let first = into.len();
        into.extend(positions.map(|position| self.tensor_at(position, storage.clone(), &starts)));
        self.hand_out(&into[first..]);
    }

    /// Takes the tensor at `position` of the plan, if it is loaded and was not taken before.
    pub(super) fn take_at(&mut self, position: usize) -> Option<Tensor> {
        let (storage, starts) = self.early.take(position)?;
        Some(self.deliver(position, storage, &starts))
    }

    /// The tensor at `position` of the plan, which is handed to the caller.
    fn deliver(&mut self, position: usize, storage: Storage, starts: &Offsets) -> Tensor {
        let tensor = self.tensor_at(position, storage, starts);
        self.hand_out(std::slice::from_ref(&tensor));
        tensor
    }

    /// The tensor at `position` of the plan.
    fn tensor_at(&self, position: usize, storage: Storage, starts: &Offsets) -> Tensor {
        let index = self.plan.tensors()[position];
        let info = &self.plan.checkpoint().tensors()[index as usize];
        let start = starts.of(position, &self.plan.span(position));
        let checkpoint = Arc::clone(self.plan.checkpoint());
        let tensor = Tensor::new(checkpoint, index, storage, start).cast(self.plan.cast_of(info));
        tensor.of_shape(self.plan.part_shape(position))
    }

    /// Counts tensors of one device that are handed to the caller.
    pub(super) fn hand_out(&mut self, tensors: &[Tensor]) {
        let Some(first) = tensors.first() else { return };
        let bytes = tensors.iter().map(|tensor| tensor.len_bytes() as u64).sum();
        self.report.deliver(tensors.len(), bytes);
        self.delivered_bytes += bytes;
        let before = self.delivered_tensors;
        self.delivered_tensors += tensors.len();
        if let Some(recorder) = self.started.handle.recorder() {
            let is_last = self.delivered_tensors == self.plan.tensor_count();
            let events = [(before == 0, "first tensor"), (is_last, "last tensor")];
            let yielded = events.into_iter().filter(|(is_yielded, _)| *is_yielded);
            yielded.for_each(|(_, event)| recorder.event(event, String::new()));
        }
        let is_cast = |tensor: &&Tensor| self.plan.cast_of(tensor.info()).is_some();
        self.cast_tensors += tensors.iter().filter(is_cast).count();
        *self.device_bytes.entry(first.device()).or_default() += bytes;
    }

    /// Takes a completion or an error of the engines. Returns false when the load has ended.
    fn take_completion(&mut self, completion: Option<Result<Completion>>) -> Result<bool> {
        match completion.transpose()? {
            Some(Completion::Tensors(ready)) => {
                self.early.insert(ready);
                Ok(true)
            }
            Some(Completion::Request { .. }) => Ok(true), // only `read_into` makes requests
            None => {
                if self.ended.is_none() {
                    self.started.handle.check_passed()?;
                }
                Ok(false)
            }
        }
    }

    /// Makes the next loaded tensors the current ones, if they are due.
    fn advance(&mut self) {
        let next = match self.in_file_order {
            false => self.early.pop_first(),
            true => self.early.pop(self.next_position),
        };
        if let Some(ready) = next {
            self.next_position = ready.positions.end;
            self.current = Some(ready);
        }
    }

    fn end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
        match self.started.waits_at_end {
            true => self.started.handle.stop(),
            false => self.started.handle.cancel(),
        }
    }

    /// Handles one completion of the queue. Returns an item or the end, or `Pending` if another
    /// completion is needed.
    fn step(&mut self, completion: Option<Result<Completion>>) -> Poll<Option<Result<Tensor>>> {
        match self.take_completion(completion) {
            Ok(true) => {
                self.at_hand().map_or(Poll::Pending, |tensor| Poll::Ready(Some(Ok(tensor))))
            }
            Ok(false) => {
                self.end();
                self.report.succeed();
                Poll::Ready(None)
            }
            Err(error) => {
                self.early.clear();
                self.end();
                Poll::Ready(Some(Err(self.report.fail(error))))
            }
        }
    }

    /// A tensor that is loaded and can be yielded at once, if there is one.
    ///
    /// In contrast to `next`, this does not count as waiting for the load.
    pub fn at_hand(&mut self) -> Option<Tensor> {
        if let Some(yielded) = self.plan.yielded() {
            let position = *yielded.get(self.next_position)? as usize;
            let tensor = self.take_at(position)?;
            self.next_position += 1;
            return Some(tensor);
        }
        loop {
            if let Some(tensor) = self.take() {
                return Some(tensor);
            }
            self.advance();
            self.current.as_ref()?;
        }
    }

    /// The next tensor for an async caller, who is woken when there may be one.
    pub(super) fn poll_tensor(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Tensor>>> {
        loop {
            if let Some(tensor) = self.at_hand() {
                return Poll::Ready(Some(Ok(tensor)));
            }
            let completion = ready!(self.started.handle.poll_pop(cx));
            if let Poll::Ready(item) = self.step(completion) {
                return Poll::Ready(item);
            }
        }
    }

    /// Takes one completion of the engines, for a caller that takes tensors by position. Returns whether
    /// there may be others.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let completion = ready!(self.started.handle.poll_pop(cx));
        Poll::Ready(self.accept_completion(completion))
    }

    /// Drops the tensors that were not taken, and waits for others. Returns whether there may be any.
    pub(super) fn accept(&mut self) -> Result<bool> {
        self.early.clear();
        let completion = self.started.handle.pop();
        self.accept_completion(completion)
    }

    fn accept_completion(&mut self, completion: Option<Result<Completion>>) -> Result<bool> {
        let accepted = self.take_completion(completion);
        if !matches!(accepted, Ok(true)) {
            self.end();
        }
        accepted
    }

    /// Whether the tensor at `position` is loaded and was not taken.
    pub(super) fn has_loaded(&self, position: usize) -> bool {
        self.early.has(position)
    }

    /// Ends the load, waits until no read is in flight, and returns what was loaded and not taken.
    pub(super) fn end_now(&mut self) -> Vec<Tensor> {
        self.started.handle.stop();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(completion))) = self.started.handle.poll_pop(&mut cx) {
            if let Completion::Tensors(ready) = completion {
                self.early.insert(ready);
            }
        }
        self.current = None;
        let left = self.early.take_all();
        left.map(|(position, storage, starts)| self.tensor_at(position, storage, &starts)).collect()
    }

    /// Fails if the tensors that were loaded so far hold NaN or infinity and the load checks that.
    pub(super) fn check_finite(&self) -> Result<()> {
        self.started.handle.check_finite()
    }

    /// The files of the cache that the load has found to be corrupt.
    #[cfg(feature = "http")]
    pub(super) fn corrupt_files(&self) -> Vec<std::path::PathBuf> {
        self.started.handle.corrupt_files()
    }

    /// The report of the load, which a load that continues it takes over.
    pub(super) fn report(&self) -> &Arc<LoadReport> {
        &self.report
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The first ring of the load, if it has one.
    pub(super) fn first_ring(&self) -> Option<&Arc<Ring>> {
        self.started.handle.ring()
    }

    /// Sets whether the end of the load, and dropping the stream, wait until no read is in flight.
    pub(super) fn wait_at_end(&mut self, waits: bool) {
        self.started.waits_at_end = waits;
    }
}

impl Iterator for TensorStream {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(tensor) = self.at_hand() {
                return Some(Ok(tensor));
            }
            let completion = self.started.handle.pop();
            if let Poll::Ready(item) = self.step(completion) {
                return item;
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
