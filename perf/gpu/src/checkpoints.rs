//! Checkpoints to load. Their bytes differ everywhere and are remembered, so that loaded tensors
//! can be compared with the written bytes without code of the library.

use ringload::{Dtype, Error, ErrorKind, Loaded, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: String,
    pub dtype: Dtype,
    pub dimensions: Vec<usize>,
}

impl Shape {
    pub fn new(name: impl Into<String>, dtype: Dtype, dimensions: &[usize]) -> Self {
        Self { name: name.into(), dtype, dimensions: dimensions.into() }
    }

    pub fn bytes(&self) -> u64 {
        let elements: usize = self.dimensions.iter().product();
        (elements * self.dtype.bitsize() / 8) as u64
    }
}

/// The position of a written tensor's bytes.
#[derive(Debug, Clone)]
struct Place {
    file: usize,
    offset: u64,
    len: u64,
    dtype: Dtype,
}

/// A checkpoint of several files.
#[derive(Debug, Clone)]
pub struct Written {
    pub files: Vec<PathBuf>,
    /// The bytes of the tensors of each file.
    pub file_bytes: Vec<u64>,
    places: HashMap<String, Place>,
}

impl Written {
    /// Writes `shards` below `directory` in parallel, and waits until they are on the disk.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn new(directory: &Path, name: &str, shards: &[Vec<Shape>]) -> Result<Self> {
        let mut files = Vec::new();
        let mut places = HashMap::new();
        for (file, shapes) in shards.iter().enumerate() {
            files.push(directory.join(format!("{name}-{file}.safetensors")));
            let mut offset = header(shapes).len() as u64;
            for shape in shapes {
                let place = Place { file, offset, len: shape.bytes(), dtype: shape.dtype };
                offset += place.len;
                places.insert(shape.name.clone(), place);
            }
        }
        let next = AtomicUsize::new(0);
        let write = || {
            loop {
                let file = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = files.get(file) else { return Ok(()) };
                write_file(path, &shards[file], file as u64).map_err(|error| {
                    Error::from_io(format_args!("write {}", path.display()), error)
                })?;
            }
        };
        side_by_side(files.len(), write)?;
        let file_bytes = shards.iter().map(|shapes| shapes.iter().map(Shape::bytes).sum());
        Ok(Self { file_bytes: file_bytes.collect(), files, places })
    }

    /// The same files, copied into another directory.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn copied(&self, directory: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for from in &self.files {
            let to = directory.join(from.file_name().unwrap_or_default());
            std::fs::copy(from, &to).map_err(|error| {
                Error::from_io(format_args!("copy {} to {}", from.display(), to.display()), error)
            })?;
            files.push(to);
        }
        Ok(Self { files, ..self.clone() })
    }

    /// Removes the files, as far as possible.
    pub fn remove(&self) {
        for file in &self.files {
            // Remaining files are removed with the directory, which reports failures.
            let _ = std::fs::remove_file(file);
        }
    }

    /// The bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.file_bytes.iter().sum()
    }

    pub fn tensors(&self) -> usize {
        self.places.len()
    }

    /// Its first `count` files.
    pub fn first(&self, count: usize) -> Self {
        let mut part = self.clone();
        part.files.truncate(count);
        part.file_bytes.truncate(count);
        part.places.retain(|_, place| place.file < count);
        part
    }

    /// Fails unless `loaded` has all tensors, with the bytes of the files.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming the first difference.
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
        if loaded.len() != self.places.len() {
            let (got, wanted) = (loaded.len(), self.places.len());
            return Err(differs(format!("{got} tensors were loaded, {wanted} were written")));
        }
        let files = open_all(&self.files)?;
        let tensors: Vec<_> = loaded.iter().collect();
        let next = AtomicUsize::new(0);
        side_by_side(tensors.len(), || {
            while let Some(tensor) = tensors.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = tensor.name();
                let Some(place) = self.places.get(name) else {
                    return Err(differs(format!("{name} was never written")));
                };
                let mut wanted = vec![0; place.len as usize];
                files[place.file]
                    .read_exact_at(&mut wanted, place.offset)
                    .map_err(|error| Error::from_io(format_args!("read {name} again"), error))?;
                check_equal(name, &tensor.to_vec()?, &change(place.dtype, wanted))?;
            }
            Ok(())
        })
    }
}

/// Fails unless both are equal.
///
/// # Errors
/// [`ErrorKind::Corrupt`], naming the first byte that differs.
pub fn check_equal(what: &str, got: &[u8], wanted: &[u8]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let (len, wanted_len) = (got.len(), wanted.len());
    if len != wanted_len {
        return Err(differs(format!("{what} has {len} bytes instead of {wanted_len}")));
    }
    let wrong = std::iter::zip(got, wanted).filter(|(got, wanted)| got != wanted).count();
    let first = std::iter::zip(got, wanted).position(|(got, wanted)| got != wanted).unwrap_or(0);
    let (got, wanted) = (got[first], wanted[first]);
    Err(differs(format!(
        "{what}: {wrong} of {len} bytes are wrong, the first at {first}: {got:#04x} instead of \
         {wanted:#04x}"
    )))
}

pub fn differs(sentence: String) -> Error {
    Error::new(ErrorKind::Corrupt, sentence)
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<File>> {
    let open = |path: &PathBuf| {
        File::open(path)
            .map_err(|error| Error::from_io(format_args!("open {}", path.display()), error))
    };
    paths.iter().map(open).collect()
}

/// Runs `work` on one thread per core, at most `most`; returns the first error.
fn side_by_side(most: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min(most)).map(|_| scope.spawn(&work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.fold(Ok(()), Result::and)
    })
}

/// The length of the JSON, and the JSON.
fn header(shapes: &[Shape]) -> Vec<u8> {
    let mut tensors = Map::new();
    let mut start = 0;
    for shape in shapes {
        let end = start + shape.bytes();
        let entry = json!({
            "dtype": format!("{:?}", shape.dtype),
            "shape": shape.dimensions,
            "data_offsets": [start, end],
        });
        tensors.insert(shape.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(tensors).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

fn write_file(path: &Path, shapes: &[Shape], seed: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(4 << 20, File::create(path)?);
    file.write_all(&header(shapes))?;
    let mut noise = fastrand::Rng::with_seed(seed);
    let mut buffer = vec![0; 1 << 20];
    let mut left: u64 = shapes.iter().map(Shape::bytes).sum();
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        noise.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The layers of a llama, `bytes` and at most one more layer, in at most `shards` shards.
pub fn llama(bytes: u64, shards: usize) -> Vec<Vec<Shape>> {
    let layer_bytes = |hidden: usize| (26 * hidden * hidden + 4 * hidden) as u64;
    let hidden = (6..=12).map(|power| 1 << power).rev();
    let fits = |hidden: &usize| layer_bytes(*hidden) <= bytes / shards as u64;
    let hidden = hidden.into_iter().find(fits).unwrap_or(64);
    let layers = bytes.div_ceil(layer_bytes(hidden)) as usize;
    let layers: Vec<_> = (0..layers).collect();
    let per_shard = layers.len().div_ceil(shards);
    let shard =
        |layers: &[usize]| layers.iter().flat_map(|&layer| llama_layer(layer, hidden)).collect();
    layers.chunks(per_shard).map(shard).collect()
}

fn llama_layer(layer: usize, hidden: usize) -> Vec<Shape> {
    let wide = hidden * 7 / 2;
    let tensors: [(&str, Vec<usize>); 9] = [
        ("input_layernorm", vec![hidden]),
        ("mlp.down_proj", vec![hidden, wide]),
        ("mlp.gate_proj", vec![wide, hidden]),
        ("mlp.up_proj", vec![wide, hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("self_attn.k_proj", vec![hidden / 4, hidden]),
        ("self_attn.o_proj", vec![hidden, hidden]),
        ("self_attn.q_proj", vec![hidden, hidden]),
        ("self_attn.v_proj", vec![hidden / 4, hidden]),
    ];
    let shape = |(name, dimensions): (&str, Vec<usize>)| {
        Shape::new(format!("model.layers.{layer}.{name}.weight"), Dtype::BF16, &dimensions)
    };
    tensors.into_iter().map(shape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload::Loader;

    #[test]
    fn what_was_written_is_compared_with_what_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let shards = llama(1 << 20, 2);
        let written = Written::new(directory.path(), "m", &shards).unwrap();
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
        let bytes: u64 = shards.iter().flatten().map(Shape::bytes).sum();
        assert!((8 << 30..9 << 30).contains(&bytes), "{bytes}");
        assert!(shards.len() <= 8);
        assert_eq!(shards[0].iter().map(Shape::bytes).max(), Some(2 * 4096 * 14336));
    }
}
