//! Checkpoints to load. Their bytes differ everywhere, and loaded tensors are compared with the bytes
//! of the files without code of the library.

use anyhow::{Context, Result, anyhow, bail, ensure};
use ringload::{Dtype, Loaded};
use ringload_measure::checkpoint::{Tensor, data_bytes, header, write};
use ringload_measure::system::cores;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A checkpoint of several files.
#[derive(Debug, Clone)]
pub struct Written {
    pub files: Vec<PathBuf>,
    /// The tensors of each file.
    shards: Vec<Vec<Tensor>>,
}

impl Written {
    /// Writes `shards` below `directory` in parallel, and waits until they are on the disk.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn new(directory: &Path, name: &str, shards: Vec<Vec<Tensor>>) -> Result<Self> {
        let files = Self::paths(directory, name, shards.len());
        in_parallel(files.len(), |number| {
            let path = &files[number];
            write(path, &shards[number], number as u64, |_, _| ())
                .with_context(|| format!("cannot write {}", path.display()))
        })?;
        Ok(Self { files, shards })
    }

    /// The paths of `count` files.
    pub fn paths(directory: &Path, name: &str, count: usize) -> Vec<PathBuf> {
        (0..count).map(|number| directory.join(format!("{name}-{number}.safetensors"))).collect()
    }

    /// Files that were written before, of these tensors.
    pub fn of(files: Vec<PathBuf>, shards: Vec<Vec<Tensor>>) -> Self {
        Self { files, shards }
    }

    /// The same files, copied into another directory in parallel.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn copied(&self, directory: &Path) -> Result<Self> {
        let to = |from: &PathBuf| directory.join(from.file_name().unwrap_or_default());
        let files: Vec<_> = self.files.iter().map(to).collect();
        in_parallel(files.len(), |number| {
            let (from, to) = (&self.files[number], &files[number]);
            std::fs::copy(from, to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
            Ok(())
        })?;
        Ok(Self { files, shards: self.shards.clone() })
    }

    /// The bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|tensors| data_bytes(tensors)).sum()
    }

    pub fn tensors(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }

    /// Its first `count` files.
    pub fn first(&self, count: usize) -> Self {
        let mut part = self.clone();
        part.files.truncate(count);
        part.shards.truncate(count);
        part
    }

    /// Fails unless `loaded` has all tensors, with the bytes of the files.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, loaded: &Loaded) -> Result<()> {
        self.compare_as(loaded, |_, bytes| bytes)
    }

    /// As [`compare`](Self::compare), if the load changed the bytes of tensors with `change`.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn compare_as(
        &self,
        loaded: &Loaded,
        change: impl Fn(Dtype, Vec<u8>) -> Vec<u8> + Sync,
    ) -> Result<()> {
        let (got, wanted) = (loaded.len(), self.tensors());
        ensure!(got == wanted, "{got} tensors were loaded, {wanted} were written");
        let files = self.files.iter().map(File::open).collect::<std::io::Result<Vec<_>>>()?;
        let mut places = HashMap::new();
        for (file, tensors) in std::iter::zip(&files, &self.shards) {
            let mut offset = header(tensors)?.len() as u64;
            for tensor in tensors {
                places.insert(tensor.name.as_str(), (file, offset, tensor));
                offset += tensor.bytes();
            }
        }
        let tensors: Vec<_> = loaded.iter().collect();
        in_parallel(tensors.len(), |number| {
            let name = tensors[number].name();
            let place = places.get(name).ok_or_else(|| anyhow!("{name} was never written"));
            let &(file, offset, tensor) = place?;
            let mut wanted = vec![0; tensor.bytes() as usize];
            file.read_exact_at(&mut wanted, offset)
                .with_context(|| format!("cannot read {name} again"))?;
            check_equal(name, &tensors[number].to_vec()?, &change(tensor.dtype.try_into()?, wanted))
        })
    }
}

/// Fails unless both are equal.
///
/// # Errors
/// The first byte that differs.
pub fn check_equal(what: &str, got: &[u8], wanted: &[u8]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let (len, wanted_len) = (got.len(), wanted.len());
    ensure!(len == wanted_len, "{what} has {len} bytes instead of {wanted_len}");
    let differs = |&at: &usize| got[at] != wanted[at];
    let wrong = (0..len).filter(differs).count();
    let first = (0..len).find(differs).unwrap_or(0);
    let (got, wanted) = (got[first], wanted[first]);
    bail!(
        "{what}: {wrong} of {len} bytes are wrong, the first at {first}: {got:#04x} instead of \
         {wanted:#04x}"
    )
}

/// Calls `work` with each number below `count`, on one thread per core; returns the first error.
fn in_parallel(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let some = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        numbers.take_while(|&number| number < count).try_for_each(&work)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores().min(count)).map(|_| scope.spawn(some)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
            .fold(Ok(()), Result::and)
    })
}

/// The sizes of a layer of a llama, in quarters of a square matrix as wide as the model; 0: a vector.
const LAYER: [usize; 9] = [0, 14, 14, 14, 0, 1, 4, 4, 1];

/// The layers of a llama, `bytes` and at most one more layer, in at most `shards` shards.
pub fn llama(bytes: u64, shards: usize) -> Vec<Vec<Tensor>> {
    let layer_bytes = |&width: &usize| data_bytes(&layer(0, width));
    let mut widths = (6..=12).rev().map(|power| 1 << power);
    let width = widths.find(|width| layer_bytes(width) <= bytes / shards as u64).unwrap_or(64);
    let layers: Vec<_> = (0..bytes.div_ceil(layer_bytes(&width)) as usize).collect();
    let shard = |layers: &[usize]| layers.iter().flat_map(|&number| layer(number, width)).collect();
    layers.chunks(layers.len().div_ceil(shards)).map(shard).collect()
}

fn layer(number: usize, width: usize) -> Vec<Tensor> {
    let tensor = |(part, quarters): (usize, usize)| {
        let shape = if quarters == 0 { vec![width] } else { vec![width * quarters / 4, width] };
        Tensor::new(format!("model.layers.{number}.{part}.weight"), Dtype::BF16, &shape)
    };
    LAYER.into_iter().enumerate().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload::Loader;

    #[test]
    fn what_was_written_is_compared_with_what_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let written = Written::new(directory.path(), "m", llama(1 << 20, 2)).unwrap();
        assert!((1 << 20..3 << 19).contains(&written.bytes()), "{}", written.bytes());
        let loaded = Loader::new().load(&written.files).unwrap();
        written.compare(&loaded).unwrap();
        let part = written.first(1);
        part.compare(&Loader::new().load(&part.files).unwrap()).unwrap();
        assert!(written.compare(&Loader::new().load(&part.files).unwrap()).is_err());

        let file = File::options().write(true).open(&written.files[1]).unwrap();
        let len = file.metadata().unwrap().len();
        file.write_all_at(&[0xA5, 0x5A], len - 2).unwrap();
        let error = written.compare(&loaded).unwrap_err().to_string();
        assert!(error.contains("bytes are wrong, the first at"), "{error}");
    }

    #[test]
    fn a_large_llama_has_large_tensors() {
        let shards = llama(8 << 30, 8);
        let bytes: u64 = shards.iter().map(|tensors| data_bytes(tensors)).sum();
        assert!((8 << 30..9 << 30).contains(&bytes), "{bytes}");
        assert!(shards.len() <= 8);
        assert_eq!(shards[0].iter().map(Tensor::bytes).max(), Some(2 * 4096 * 14336));
    }
}
