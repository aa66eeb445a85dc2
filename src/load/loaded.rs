//! All tensors of a load, held in memory.

use super::stream::TensorStream;
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::tensor::Tensor;
use std::sync::Arc;

/// The tensors of a checkpoint, resident in memory.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let model = ringload::Loader::new().load(&path)?;
/// let norm = model.get("norm").ok_or("no norm")?;
/// assert_eq!(norm.as_slice::<f32>()?, [0.0; 6]);
/// for tensor in &model {
///     println!("{} on {}", tensor.name(), tensor.device());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Loaded {
    checkpoint: Arc<Checkpoint>,
    /// The tensors, in the order of the checkpoint.
    tensors: Vec<Tensor>,
    summary: Summary,
}

impl Loaded {
    pub(super) fn collect(mut stream: TensorStream) -> Result<Self> {
        stream.check_holds_all().map_err(|error| stream.report().fail(error))?;
        let mut tensors = Vec::with_capacity(stream.tensor_count());
        while let Some(tensor) = stream.next() {
            tensors.push(tensor?);
            stream.take_rest(&mut tensors);
        }
        // Tensors of one storage come in order, and a stable sort is quick at merging such runs.
        tensors.sort_by_key(Tensor::index);
        let checkpoint = Arc::clone(stream.checkpoint());
        Ok(Self { checkpoint, tensors, summary: stream.summary() })
    }

    /// The tensor with this name, if it was loaded.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let index = self.checkpoint.position(name)?;
        // If the whole checkpoint was loaded, a tensor's index is its position.
        match self.tensors.get(index) {
            Some(tensor) if tensor.index() == index => Some(tensor),
            _ => {
                let at = self.tensors.binary_search_by_key(&index, Tensor::index).ok()?;
                Some(&self.tensors[at])
            }
        }
    }

    /// The tensors, in the order of the checkpoint.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }

    /// How many tensors were loaded.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether no tensors were loaded.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The checkpoint of the tensors, with its metadata.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The statistics of the load.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }
}

impl IntoIterator for Loaded {
    type Item = Tensor;
    type IntoIter = std::vec::IntoIter<Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl<'a> IntoIterator for &'a Loaded {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
