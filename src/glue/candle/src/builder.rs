//! The weights of a checkpoint as a backend of candle's `VarBuilder`.

use crate::eager;
use crate::error;
use crate::memory::{Elements, HostTensor};
use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use ringload::{Checkpoint, IntoLocations, Loader, Pick, TensorInfo};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The weights of a checkpoint: a backend of [`VarBuilder`](candle_nn::VarBuilder), for builders that
/// wrap one.
pub struct Weights {
    loader: Loader,
    checkpoint: Arc<Checkpoint>,
    /// The tensors that the loader selects: the others are not there.
    selected: HashSet<usize>,
    /// The type that floats were cast to.
    held_type: Option<DType>,
    held: HashMap<String, Tensor>,
}

impl Weights {
    /// Loads all tensors of the checkpoint at `location`, to be asked for with the type `dtype`.
    ///
    /// # Errors
    /// Those of the load.
    pub fn eager(
        loader: &Loader,
        location: impl IntoLocations,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let weights = Self::lazy(loader, location)?;
        let held = eager::load(&weights.loader, &weights.checkpoint, Some(dtype), device)?;
        Ok(Self { held_type: Some(dtype), held, ..weights })
    }

    /// Opens the checkpoint at `location`; each tensor is read when it is asked for.
    ///
    /// # Errors
    /// Those of opening.
    pub fn lazy(loader: &Loader, location: impl IntoLocations) -> Result<Self> {
        let checkpoint = Arc::new(loader.open(location).map_err(error)?);
        let selected = loader.selected(&checkpoint).map_err(error)?.into_iter().collect();
        let loader = loader.clone().device(ringload::Device::Host);
        Ok(Self { loader, checkpoint, selected, held_type: None, held: HashMap::new() })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    pub(crate) fn info(&self, name: &str) -> Result<&TensorInfo> {
        let missing = || Error::CannotFindTensor { path: name.to_owned() }.bt();
        self.find(name).ok_or_else(missing)
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        let position = self.checkpoint.position(name)?;
        self.selected.contains(&position).then(|| &self.checkpoint.tensors()[position])
    }

    /// Reads the tensor, or the part of it that `picks` take.
    pub(crate) fn read(
        &self,
        info: &TensorInfo,
        picks: Option<&[Pick]>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let read = self.loader.read_tensor(&self.checkpoint, info.name(), picks).map_err(error)?;
        let elements = Elements::new(read.dtype(), Some(dtype)).ok_or_else(|| no_type(info))?;
        let tensor = HostTensor::copied(read.bytes(), read.shape(), elements)?;
        tensor.to_device(device)?.to_dtype(dtype)
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() == &shape {
            return Ok(tensor);
        }
        let (msg, got) = (format!("shape mismatch for {name}"), tensor.shape().clone());
        Err(Error::UnexpectedShape { msg, expected: shape, got }.bt())
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self.info(name)?;
        // A tensor that was narrowed to another type is read again.
        let serves = |_: &&Tensor| {
            let elements = Elements::new(info.dtype(), self.held_type);
            elements.is_some_and(|elements| elements.serve(dtype))
        };
        match self.held.get(name).filter(serves) {
            Some(tensor) => tensor.to_device(device)?.to_dtype(dtype),
            None => self.read(info, None, dtype, device),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// The error for a tensor whose type candle does not have.
pub(crate) fn no_type(info: &TensorInfo) -> Error {
    let (name, dtype) = (info.name(), info.dtype());
    Error::Msg(format!("candle has no type for tensor {name} of {dtype}"))
}
