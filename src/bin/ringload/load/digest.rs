//! SHA-256 of every tensor, computed beside the load by one worker a core.
//!
//! Tensors go to the workers over a short channel. Hashing is slower than reading, so the channel
//! holds the load back when the workers fall behind; under a cap the load waits by itself until the
//! workers have dropped what it needs.

use super::Keep;
use crate::format;
use aws_lc_rs::digest::{SHA256, digest};
use ringload::Tensor;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

/// Hexadecimal digests by tensor name.
pub type Digests = BTreeMap<String, String>;

/// The workers, and the way to them.
pub struct Digester<'scope> {
    queue: SyncSender<Tensor>,
    workers: Vec<ScopedJoinHandle<'scope, ringload::Result<Hashed>>>,
}

/// What one worker has done: digests, and the tensors if they are to be kept.
type Hashed = (Digests, Vec<Tensor>);

impl<'scope> Digester<'scope> {
    /// Starts the workers; of the tensors they hashed they keep those that `keep` says.
    pub fn start(scope: &'scope Scope<'scope, '_>, keep: Keep) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (queue, tensors) = mpsc::sync_channel(cores);
        let tensors = Arc::new(Mutex::new(tensors));
        let workers = (0..cores).map(|_| {
            let tensors = Arc::clone(&tensors);
            scope.spawn(move || work(&tensors, keep))
        });
        Digester { queue, workers: workers.collect() }
    }

    /// Hands a tensor over, waiting for a free place in the queue.
    pub fn take(&self, tensor: Tensor) {
        // The workers outlive the queue; were they gone, `finish` would say why.
        let _ = self.queue.send(tensor);
    }

    /// Waits for the last digest; hands back what was kept.
    ///
    /// # Errors
    /// When a tensor cannot be brought back from a GPU.
    pub fn finish(self) -> ringload::Result<Hashed> {
        drop(self.queue);
        let mut all = Hashed::default();
        for worker in self.workers {
            let (digests, kept) =
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.0.extend(digests);
            all.1.extend(kept);
        }
        Ok(all)
    }
}

/// Hashes tensors until the queue is closed and empty.
fn work(tensors: &Mutex<Receiver<Tensor>>, keep: Keep) -> ringload::Result<Hashed> {
    let mut done = Hashed::default();
    loop {
        // Also after a panic elsewhere: a receiver is never half-written.
        let next = tensors.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(tensor) = next else { return Ok(done) };
        let sum = match tensor.host_bytes() {
            Some(bytes) => digest(&SHA256, bytes),
            None => digest(&SHA256, &tensor.to_vec()?),
        };
        done.0.insert(tensor.name().to_owned(), format::hex(sum.as_ref()));
        if keep.keeps(&tensor) {
            done.1.push(tensor);
        }
    }
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

    #[test]
    fn digests_are_written_as_sha256sum_writes_them() {
        let digests = [("b", "01"), ("a", "00"), ("c\n", "02")];
        let digests = digests.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into();
        let mut out = Vec::new();
        write(&mut out, &digests).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "00  a\n01  b\n\\02  c\\n\n");
    }
}
