//! The tensors of a running load by their names, in any order.
//!
//! ```text
//! get(name)   loaded?              -> the tensor
//!             on its way?          -> waits for it
//!             beyond the ring?     -> the load is restarted, with this tensor first
//! ```
//!
//! The load runs ahead of its caller, and keeps the tensors that were not asked for yet. Without a memory
//! limit it reads them in the order of the checkpoint or of [`Order::Names`](crate::Order::Names). The
//! ring then holds all tensors, so each of them is loaded sooner or later.
//!
//! Under a limit, the load reads ahead in the order in which the tensors are expected to be asked for
//! (`expected_order.rs`). The ring may be full of tensors that were not asked for while the one that is
//! asked for comes after them. The load then ends, and another one begins in the same ring: with that
//! tensor, those that are expected after it, and then the others that are left. What was read ahead is
//! kept as far as it leaves room for that tensor (`kept_tensors.rs`); what is given up is read again. So a
//! jump costs a round trip, the reads that were in flight, and what is read again. After several jumps
//! in a row nothing is read ahead, until a tensor is asked for that was expected next. No order of reading helps a caller
//! whose order cannot be foreseen: of a checkpoint of `n` bytes, a ring of `r` bytes holds the next tensor
//! with a probability of at most `r / n`. The limit is kept throughout, as there is one ring.

use super::loader::Loader;
use super::named_state::{NamedState, WaitingCallers};
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::location::IntoLocations;
use crate::plan::position;
use crate::source::Progress;
use crate::sync::Mutex;
use crate::tensor::Tensor;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// The tensors of a running load by their names, for programs that build a model in an order of their
/// own. [`Loader::by_name`] makes it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let tensors = ringload::Loader::new().by_name(&path)?; // reads ahead from now on
/// let norm = tensors.get("norm")?;
/// assert_eq!(norm.shape(), [2, 3]);
/// let summary = tensors.finish()?;
/// assert_eq!(summary.bytes, 24);
/// # Ok(())
/// # }
/// ```
///
/// Each tensor is handed out once: a clone of a [`Tensor`] is cheap, and nothing is kept here of what
/// was handed out. Any number of threads may ask.
pub struct NamedTensors {
    checkpoint: Arc<Checkpoint>,
    progress: Progress,
    state: Mutex<NamedState>,
    waiting: Arc<WaitingCallers>,
}

impl Loader {
    /// Starts to load the tensors of the checkpoint at `locations`, to be asked for by name, in any
    /// order.
    ///
    /// ```no_run
    /// use ringload::Loader;
    ///
    /// # fn main() -> ringload::Result<()> {
    /// let tensors = Loader::new().by_name("s3://bucket/llama-8b/")?;
    /// let head = tensors.get("lm_head.weight")?; // the last one in the file
    /// let norm = tensors.get("model.norm.weight")?;
    /// println!("{:?} {:?}", head.shape(), norm.shape());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The load reads ahead and keeps tensors until they are asked for. Without a memory limit, or with one
    /// that holds all tensors, any order costs no more requests than a stream. Under a smaller limit, the
    /// load reads layers by their numbers, and learns from the first ones in which order the tensors of a
    /// layer are asked for; with [`Order::File`](crate::Order::File) or
    /// [`Order::Names`](crate::Order::Names) it reads in that order. A tensor that is asked for earlier
    /// than expected, and is beyond what the limit holds, restarts the load, which costs requests. It does
    /// not fail for that reason, unless [`verify`](Self::verify) computes checksums of whole files or
    /// objects: then the error names the tensor and a limit that suffices.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn by_name(&self, locations: impl IntoLocations) -> Result<NamedTensors> {
        self.by_name_checkpoint(Arc::new(self.open(locations)?))
    }

    /// As [`by_name`](Self::by_name), for an open checkpoint.
    ///
    /// # Errors
    /// As [`by_name`](Self::by_name).
    pub fn by_name_checkpoint(&self, checkpoint: Arc<Checkpoint>) -> Result<NamedTensors> {
        let state = NamedState::start(self.clone(), Arc::clone(&checkpoint))?;
        let progress = state.progress();
        let waiting = Arc::default();
        Ok(NamedTensors { checkpoint, progress, state: Mutex::new(state), waiting })
    }
}

impl NamedTensors {
    /// The tensor called `name`, as soon as it is loaded.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a name of no tensor, or of one that the loader does not
    /// select; [`InvalidInput`](crate::ErrorKind::InvalidInput) for a tensor that was handed out before;
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) if it does not fit beside the tensors that the caller
    /// holds; else the error of the load, after which all calls fail.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        block_on(self.get_async(name))
    }

    /// As [`get`](Self::get), without blocking. A future that is dropped loses no tensor.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_async(&self, name: &str) -> Result<Tensor> {
        let index = position(&self.checkpoint, name)? as u32;
        let waker = Waker::from(Arc::clone(&self.waiting));
        poll_fn(|cx| {
            self.waiting.add(cx.waker()); // before the load is polled, so that no tensor is missed
            self.state.lock().poll(index, &mut Context::from_waker(&waker), &self.waiting)
        })
        .await
    }

    /// Whether the checkpoint has a tensor called `name`, handed out or not.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    /// The checkpoint that is being loaded.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The handle that shows the load's progress: that of the [loader](crate::Loader::progress), or one
    /// of this load alone. Bytes that are read again, after a restart, are not counted again.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The statistics of the load so far.
    pub fn summary(&self) -> Summary {
        self.state.lock().summary()
    }

    /// Ends the load, and returns its statistics. If the load has checks, all of its tensors are read to
    /// the end first, whether or not they were asked for.
    ///
    /// # Errors
    /// Those of the load and of its checks.
    pub fn finish(self) -> Result<Summary> {
        self.state.into_inner().finish()
    }
}

impl fmt::Debug for NamedTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedTensors").field(&self.checkpoint).finish()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park(),
        }
    }
}
