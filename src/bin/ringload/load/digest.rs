//! Computes the SHA-256 of every tensor during the load, with one worker thread per core.
//!
//! Tensors go to the workers over a short channel. Hashing is slower than reading, so the full
//! channel blocks the load when the workers fall behind. Under a memory limit the load also waits
//! until the workers have dropped tensors.

use super::retention::Retention;
use crate::format;
use aws_lc_rs::digest::{SHA256, digest};
use ringload::Tensor;
use ringload::internals::Mutex;
use ringload::internals::{Escaped, spawn_scoped};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, Scope, ScopedJoinHandle};

/// Hexadecimal digests by tensor name.
pub type Digests = BTreeMap<String, String>;

/// The workers and their queue.
pub struct Digester<'scope> {
    queue: SyncSender<Tensor>,
    workers: Vec<ScopedJoinHandle<'scope, ringload::Result<Hashed>>>,
}

/// The result of one worker: the digests, and the tensors that are kept.
type Hashed = (Digests, Vec<Tensor>);

impl<'scope> Digester<'scope> {
    /// Starts the workers, which keep the tensors that `retention` selects.
    ///
    /// # Errors
    /// When not even one of them can be started.
    pub fn start(scope: &'scope Scope<'scope, '_>, retention: Retention) -> ringload::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (queue, tensors) = mpsc::sync_channel(cores);
        let tensors = Arc::new(Mutex::new(tensors));
        let start = |_| {
            let tensors = Arc::clone(&tensors);
            spawn_scoped(scope, "ringload-digest", move || work(&tensors, retention))
        };
        let mut workers = vec![start(0)?];
        workers.extend((1..cores).map_while(|number| start(number).ok()));
        Ok(Digester { queue, workers })
    }

    /// Queues a tensor; blocks while the queue is full.
    pub fn take(&self, tensor: Tensor) {
        // The workers end after the queue unless they panic, which `finish` reports.
        let _ = self.queue.send(tensor);
    }

    /// Waits for the last digest and returns all digests and the tensors that were kept.
    ///
    /// # Errors
    /// When a tensor cannot be copied from a GPU.
    pub fn finish(self) -> ringload::Result<Hashed> {
        drop(self.queue);
        let mut all = Hashed::default();
        for worker in self.workers {
            let (digests, tensors) =
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.0.extend(digests);
            all.1.extend(tensors);
        }
        Ok(all)
    }
}

/// Hashes tensors until the queue is closed and empty.
fn work(tensors: &Mutex<Receiver<Tensor>>, retention: Retention) -> ringload::Result<Hashed> {
    let mut done = Hashed::default();
    loop {
        // A panic of another worker leaves the receiver intact.
        let next = tensors.lock().recv();
        let Ok(tensor) = next else { return Ok(done) };
        let hash = match tensor.host_bytes() {
            Some(bytes) => digest(&SHA256, bytes),
            None => digest(&SHA256, &tensor.to_vec()?),
        };
        done.0.insert(tensor.name().to_owned(), format::hex(hash.as_ref()));
        if retention.keeps(&tensor) {
            done.1.push(tensor);
        }
    }
}

/// Writes the digests as `sha256sum` does: the digest, two spaces, the name.
///
/// A name with a control character or a backslash is escaped, and its line begins with a backslash.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, digests: &Digests) -> io::Result<()> {
    for (name, digest) in digests {
        let escaped = Escaped(name.replace('\\', "\\\\")).to_string();
        let mark = if escaped == *name { "" } else { "\\" };
        writeln!(out, "{mark}{digest}  {escaped}")?;
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
