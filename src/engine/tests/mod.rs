//! Whole loads with misbehaving sources, misbehaving consumers, and files that change.
//!
//! A [`Rig`] is a checkpoint in memory whose read attempts follow a script. One rig serves any number
//! of loads. All tests assert that every tensor that is handed out equals the file's bytes, however
//! the load ends.

mod async_streams;
mod borrowed;
mod casts;
mod changes;
mod drops;
mod faults;
#[cfg(feature = "sha256")]
mod in_order;
mod limits;
mod short_reads;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::load::{Loader, Summary, TensorStream};
use crate::options::MemoryLimit;
use crate::source::memory::{Fault, MemorySource};
use crate::tensor::Tensor;
use crate::test_files::{checkpoint_of, file_at, is_intact};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Script = Box<dyn FnMut(usize, u64, usize) -> Fault + Send>;

/// A read attempt as the source saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenRead {
    offset: u64,
    fault: Fault,
}

struct Stage {
    script: Script,
    seen: Vec<SeenRead>,
}

/// A checkpoint in memory, with a script for its reads.
struct Rig {
    file: Arc<Vec<u8>>,
    checkpoint: Arc<Checkpoint>,
    stage: Arc<Mutex<Stage>>,
    downgraded: Arc<AtomicBool>,
}

/// How a load ended.
struct Outcome {
    tensors: usize,
    error: Option<Error>,
    summary: Summary,
}

impl Rig {
    fn new(sizes: &[usize], data_offset: usize, block_bytes: usize) -> Self {
        Self::of(file_at("t", sizes, data_offset), block_bytes)
    }

    /// A rig of this file.
    fn of(file: Vec<u8>, block_bytes: usize) -> Self {
        let file = Arc::new(file);
        let stage =
            Arc::new(Mutex::new(Stage { script: Box::new(|_, _, _| Fault::None), seen: vec![] }));
        let script = Arc::clone(&stage);
        let bytes = file.to_vec();
        let source =
            MemorySource::faulty("rig.safetensors", bytes, block_bytes, move |_, at, len| {
                let mut stage = lock(&script);
                let number = stage.seen.len();
                stage.seen.push(SeenRead { offset: at, fault: Fault::None });
                let fault = (stage.script)(number, at, len);
                stage.seen[number].fault = fault;
                fault
            });
        let downgraded = Arc::clone(&source.downgraded);
        Self { file, checkpoint: checkpoint_of(vec![source]), stage, downgraded }
    }

    /// Tensors of many sizes, some of them empty: with [`capped`] a few dozen reads.
    fn mixed(block_bytes: usize) -> Self {
        let sizes: Vec<usize> =
            (0..40).map(|i| (i * 7919) % 50_000 * usize::from(i % 7 > 0)).collect();
        Self::new(&sizes, 0, block_bytes)
    }

    /// Attempts go as `script` says from now on; it is given their number, offset and length.
    fn script(&self, script: impl FnMut(usize, u64, usize) -> Fault + Send + 'static) {
        *lock(&self.stage) = Stage { script: Box::new(script), seen: Vec::new() };
        self.downgraded.store(false, Ordering::Relaxed);
    }

    fn seen(&self) -> Vec<SeenRead> {
        lock(&self.stage).seen.clone()
    }

    fn stream(&self, loader: &Loader) -> TensorStream {
        loader.stream_checkpoint(Arc::clone(&self.checkpoint)).unwrap()
    }

    /// Takes everything, checking it, and dropping each tensor before the next is taken.
    fn load(&self, loader: &Loader) -> Outcome {
        drain(&mut self.stream(loader), &self.file)
    }

    /// A load that has to succeed.
    fn load_well(&self, loader: &Loader) -> Summary {
        let outcome = self.load(loader);
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert_eq!(outcome.tensors, self.checkpoint.tensors().len());
        assert_eq!(outcome.summary.bytes, self.checkpoint.data_bytes());
        outcome.summary
    }

    fn is_intact(&self, tensor: &Tensor) -> bool {
        is_intact(tensor, &[&self.file])
    }
}

fn drain(stream: &mut TensorStream, file: &[u8]) -> Outcome {
    let (mut tensors, mut error) = (0, None);
    for item in &mut *stream {
        match item {
            Ok(tensor) => {
                assert!(is_intact(&tensor, &[file]), "{} is wrong", tensor.name());
                tensors += 1;
            }
            Err(met) => {
                assert!(error.is_none(), "a second error: {met:?}");
                error = Some(met);
            }
        }
    }
    assert!(stream.next().is_none(), "the stream went on after its end");
    Outcome { tensors, error, summary: stream.summary() }
}

/// One engine, no limit; nothing is read from the environment.
fn loader() -> Loader {
    Loader::new().engines(1).memory_limit(MemoryLimit::Unlimited)
}

/// One engine, a limit far below the rig's bytes.
fn capped() -> Loader {
    loader().memory_limit(MemoryLimit::Bytes(192 << 10))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time after which a test counts as hanging, however busy the machine is.
const HANG_LIMIT: Duration = Duration::from_secs(300);

/// Runs `body`, and fails if it hangs.
fn without_hanging<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || done.send(body()).ok());
    match wait.recv_timeout(HANG_LIMIT) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it ended without an answer"),
        },
    }
}
