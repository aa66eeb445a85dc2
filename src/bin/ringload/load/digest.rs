//! SHA-256 of every tensor, computed beside the load by one worker a core.
//!
//! Tensors go to the workers over a short channel. Hashing is slower than reading, so the channel
//! holds the load back when the workers fall behind. Under a cap that alone would not do: tensors
//! waiting for a worker fill the memory that the next tensor needs. [`Gate`] therefore makes the
//! consumer wait, before it asks for the next tensor, until what it still holds leaves room under
//! the cap for the largest one twice (one being read, one on its way).

use crate::format;
use aws_lc_rs::digest::{SHA256, digest};
use ringload::{Tensor, TensorStream};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

/// Hexadecimal digests by tensor name.
pub type Digests = BTreeMap<String, String>;

/// The workers, and the way to them.
pub struct Digester<'scope> {
    queue: SyncSender<Tensor>,
    gate: Arc<Gate>,
    workers: Vec<ScopedJoinHandle<'scope, Hashed>>,
}

/// What one worker has done: digests, and the tensors if they are to be kept.
type Hashed = (Digests, Vec<Tensor>);

impl<'scope> Digester<'scope> {
    /// Starts the workers; they keep the tensors they hashed if `keep` says so.
    pub fn start(scope: &'scope Scope<'scope, '_>, stream: &TensorStream, keep: bool) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (queue, tensors) = mpsc::sync_channel(cores);
        let tensors = Arc::new(Mutex::new(tensors));
        let gate = Arc::new(Gate::new(allowance_bytes(stream)));
        let workers = (0..cores).map(|_| {
            let (tensors, gate) = (Arc::clone(&tensors), Arc::clone(&gate));
            scope.spawn(move || work(&tensors, &gate, keep))
        });
        Digester { queue, workers: workers.collect(), gate }
    }

    /// Hands a tensor over, and returns once there is room for the next.
    pub fn take(&self, tensor: Tensor) {
        self.gate.enter(held_bytes(&tensor));
        // The workers outlive the queue; were they gone, `finish` would say why.
        let _ = self.queue.send(tensor);
        self.gate.wait();
    }

    /// Waits for the last digest; hands back what was kept.
    pub fn finish(self) -> Hashed {
        drop(self.queue);
        let mut all = Hashed::default();
        for worker in self.workers {
            let (digests, kept) =
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.0.extend(digests);
            all.1.extend(kept);
        }
        all
    }
}

/// Hashes tensors until the queue is closed and empty.
fn work(tensors: &Mutex<Receiver<Tensor>>, gate: &Gate, keep: bool) -> Hashed {
    let mut done = Hashed::default();
    loop {
        let next = lock(tensors).recv();
        let Ok(tensor) = next else { return done };
        let sum = digest(&SHA256, tensor.bytes());
        done.0.insert(tensor.name().to_owned(), format::hex(sum.as_ref()));
        let bytes = held_bytes(&tensor);
        if keep {
            done.1.push(tensor);
        } else {
            drop(tensor);
        }
        gate.leave(bytes);
    }
}

fn held_bytes(tensor: &Tensor) -> u64 {
    tensor.bytes().len() as u64
}

/// How many bytes may be with the workers when the next tensor is asked for.
fn allowance_bytes(stream: &TensorStream) -> u64 {
    let Some(limit) = stream.summary().memory_limit_bytes else {
        return u64::MAX;
    };
    let tensors = stream.checkpoint().tensors().iter();
    let largest = tensors.map(|tensor| tensor.len_bytes()).max().unwrap_or(0);
    limit.saturating_sub(largest.saturating_mul(2))
}

/// Counts the bytes that are with the workers.
struct Gate {
    allowance_bytes: u64,
    held_bytes: Mutex<u64>,
    left: Condvar,
}

impl Gate {
    fn new(allowance_bytes: u64) -> Self {
        Gate { allowance_bytes, held_bytes: Mutex::new(0), left: Condvar::new() }
    }

    fn enter(&self, bytes: u64) {
        *lock(&self.held_bytes) += bytes;
    }

    fn leave(&self, bytes: u64) {
        *lock(&self.held_bytes) -= bytes;
        self.left.notify_one();
    }

    fn wait(&self) {
        let mut held = lock(&self.held_bytes);
        while *held > self.allowance_bytes {
            held = self.left.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Locks even after a panic elsewhere: the values guarded here are never half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the digests as `sha256sum` does: the digest, two spaces, the name.
///
/// A name with a line break or a backslash is escaped, and its line begun with a backslash.
///
/// # Errors
/// What `out` answers.
pub fn write(out: &mut dyn Write, digests: &Digests) -> io::Result<()> {
    for (name, digest) in digests {
        if name.contains(['\\', '\n', '\r']) {
            let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
            writeln!(out, "\\{digest}  {name}")?;
        } else {
            writeln!(out, "{digest}  {name}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn digests_are_written_as_sha256sum_writes_them() {
        let digests = [("b", "01"), ("a", "00"), ("c\n", "02")];
        let digests = digests.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into();
        let mut out = Vec::new();
        write(&mut out, &digests).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "00  a\n01  b\n\\02  c\\n\n");
    }

    #[test]
    fn the_gate_holds_back_until_enough_has_left() {
        let gate = Gate::new(10);
        gate.enter(8);
        gate.wait();
        gate.enter(8);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.wait());
            thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished(), "16 bytes are held, 10 allowed");
            gate.leave(8);
            waiting.join().unwrap();
        });
    }
}
