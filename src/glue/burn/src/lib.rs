//! Loads [burn](burn_core) models with [ringload]: checkpoints of one or many files, from local disks as
//! fast as they are, and from object stores and web servers.
//!
//! ```no_run
//! use burn_store::{ModuleSnapshot, PyTorchToBurnAdapter};
//! use ringload::Loader;
//! use ringload_burn::RingloadStore;
//!
//! # fn build<M: burn_core::module::Module>(mut model: M) -> ringload::Result<()> {
//! // was: SafetensorsStore::from_file("/models/llama-8b/model.safetensors")
//! let mut store = RingloadStore::open(&Loader::new(), "/models/llama-8b")?
//!     .with_from_adapter(PyTorchToBurnAdapter);
//! model.load_from(&mut store)?;
//! # Ok(())
//! # }
//! ```
//!
//! # How a load works
//!
//! [`RingloadStore`] is a [`ModuleStore`]. Opening it reads the headers. `load_from` reads all tensors
//! that the loader and the store's filter select, at the speed of the disk or network, and hands burn
//! their memory without a copy: backends that keep tensors in host memory, such as flex, use it as it is.
//! So the model is in memory once. A tensor that is asked for by its name is read when its bytes are.
//!
//! The options of the loader apply, apart from its device: burn moves tensors to its own devices.
//!
//! The minor version of this crate is that of burn: 0.22 is for burn 0.22.

use burn_core::tensor::{AllocationProperty, BoolStore, Bytes, DType, Shape, TensorData};
use burn_store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn_store::{
    ApplyResult, IdentityAdapter, KeyRemapper, ModuleAdapter, ModuleSnapshot, ModuleStore,
    PathFilter, bridge,
};
use ringload::{
    Checkpoint, Device, Dtype, Error, ErrorKind, IntoLocations, Loader, Result, Tensor, TensorInfo,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A checkpoint that burn's modules are loaded from with
/// [`load_from`](burn_store::ModuleSnapshot::load_from). It cannot be saved to.
pub struct RingloadStore {
    loader: Loader,
    checkpoint: Arc<Checkpoint>,
    filter: PathFilter,
    remapper: KeyRemapper,
    adapter: Box<dyn ModuleAdapter>,
    allow_partial: bool,
    skip_enum_variants: bool,
    /// All tensors by their names in the module; each is read when its bytes are asked for.
    tensors: BTreeMap<String, PackTensor>,
}

impl RingloadStore {
    /// Opens the checkpoint at `location`, and reads the headers of its files.
    ///
    /// # Errors
    /// Those of [`Loader::open`], and those of the loader's selection.
    pub fn open(loader: &Loader, location: impl IntoLocations) -> Result<Self> {
        let checkpoint = Arc::new(loader.open(location)?);
        let loader = loader.clone().device(Device::Host).caller_may_retain_all(true);
        let store = Self {
            loader,
            checkpoint,
            filter: PathFilter::new(),
            remapper: KeyRemapper::new(),
            adapter: Box::new(IdentityAdapter),
            allow_partial: false,
            skip_enum_variants: false,
            tensors: BTreeMap::new(),
        };
        store.described()
    }

    /// Loads only the tensors whose names in the module the filter accepts.
    #[must_use]
    pub fn filter(self, filter: PathFilter) -> Self {
        Self { filter, ..self }
    }

    /// Renames the checkpoint's tensors to the names of the module.
    ///
    /// # Errors
    /// Those of the loader's selection.
    pub fn remap(self, remapper: KeyRemapper) -> Result<Self> {
        Self { remapper, ..self }.described()
    }

    /// Adapts tensors as they are loaded, such as those of PyTorch with
    /// [`PyTorchToBurnAdapter`](burn_store::PyTorchToBurnAdapter).
    #[must_use]
    pub fn with_from_adapter(self, adapter: impl ModuleAdapter + 'static) -> Self {
        Self { adapter: Box::new(adapter), ..self }
    }

    /// Lets a load succeed though the checkpoint lacks tensors of the module. The result of the load
    /// names them.
    #[must_use]
    pub fn allow_partial(self, allow_partial: bool) -> Self {
        Self { allow_partial, ..self }
    }

    /// Leaves the names of enum variants out of the names of the module.
    #[must_use]
    pub fn skip_enum_variants(self, skip_enum_variants: bool) -> Self {
        Self { skip_enum_variants, ..self }
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// This store with the descriptions of its tensors.
    fn described(self) -> Result<Self> {
        let mut tensors = Vec::new();
        for index in self.loader.selected(&self.checkpoint)? {
            tensors.extend(self.deferred(&self.checkpoint.tensors()[index]));
        }
        let (tensors, _) = self.remapper.remap(tensors);
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Ok(Self { tensors, ..self })
    }

    /// A tensor that is read when its bytes are asked for; `None` if burn has no such type.
    fn deferred(&self, info: &TensorInfo) -> Option<PackTensor> {
        let dtype = burn_type(info.dtype())?;
        let (loader, checkpoint) = (self.loader.clone(), Arc::clone(&self.checkpoint));
        let (name, shape) = (info.name().to_owned(), Shape::from(info.shape()));
        let read = move || {
            let tensor = loader.read_tensor(&checkpoint, &name, None).map_err(pack)?;
            Ok(data_of(tensor)?.convert_dtype(dtype))
        };
        Some(bridge::deferred(info.name().to_owned(), dtype, shape, None, read))
    }

    /// Loads all tensors that the filter accepts. Their memory is that of the load, which each of them
    /// keeps a part of.
    fn load(&self) -> Result<Vec<PackTensor>> {
        let is_wanted = |name: &str| self.filter.is_empty() || self.filter.matches(name);
        let all: Vec<&TensorInfo> = self.checkpoint.tensors().iter().collect();
        let renamed = self.renamed(&all);
        let mut names = Vec::new();
        for index in self.loader.selected(&self.checkpoint)? {
            let is_burns = burn_type(all[index].dtype()).is_some();
            if is_burns && is_wanted(&renamed[index]) {
                names.push(all[index].name());
            }
        }
        let loader = self.loader.clone().tensors(Vec::<String>::new()).names(names);
        let loaded = loader.load_checkpoint(Arc::clone(&self.checkpoint))?;
        let tensors = loaded.into_iter().map(|tensor| {
            let name = renamed[tensor.index()].clone();
            Ok(bridge::from_data(data_of(tensor).map_err(unpack)?, name, None))
        });
        tensors.collect()
    }

    /// The names in the module of these tensors.
    fn renamed(&self, tensors: &[&TensorInfo]) -> Vec<String> {
        let empty = |info: &&TensorInfo| {
            let bytes = Bytes::from_bytes_vec(Vec::new());
            PackTensor::new(info.name().to_owned(), DType::U8, [0], None, bytes)
        };
        let (renamed, _) = self.remapper.remap(tensors.iter().map(empty).collect());
        renamed.into_iter().map(|tensor| tensor.name).collect()
    }
}

impl ModuleStore for RingloadStore {
    type Error = Error;

    /// # Errors
    /// Always: ringload only loads.
    fn collect_from<M: ModuleSnapshot>(&mut self, _: &M) -> Result<()> {
        let sentence = "ringload does not save modules; save them with burn's SafetensorsStore";
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    fn apply_to<M: ModuleSnapshot>(&mut self, module: &mut M) -> Result<ApplyResult> {
        let tensors = self.load()?;
        let filter = (!self.filter.is_empty()).then(|| self.filter.clone());
        let adapter = Some(self.adapter.clone());
        let result = module.apply(tensors, filter, adapter, self.skip_enum_variants);
        let invalid = |sentence: String| Err(Error::new(ErrorKind::InvalidInput, sentence));
        if !result.errors.is_empty() {
            return invalid(format!("the module does not take the tensors: {:?}", result.errors));
        }
        if !self.allow_partial && !result.missing.is_empty() {
            let missing: Vec<&str> = result.missing.iter().map(|(name, _)| name.as_str()).collect();
            return invalid(format!(
                "the checkpoint lacks tensors of the module: {}; allow_partial loads the others",
                missing.join(", ")
            ));
        }
        Ok(result)
    }

    fn get_tensor(&mut self, name: &str) -> Result<Option<&PackTensor>> {
        Ok(self.tensors.get(name))
    }

    fn get_all_tensors(&mut self) -> Result<&BTreeMap<String, PackTensor>> {
        Ok(&self.tensors)
    }

    fn keys(&mut self) -> Result<Vec<String>> {
        Ok(self.tensors.keys().cloned().collect())
    }
}

/// The tensor's data, in its own memory if that is aligned for burn.
fn data_of(tensor: Tensor) -> Result<TensorData, PackError> {
    let Some(dtype) = burn_type(tensor.dtype()) else {
        let (name, dtype) = (tensor.name(), tensor.dtype());
        return Err(PackError::ValidationError(format!("burn has no type for {name} of {dtype}")));
    };
    let (name, shape) = (tensor.name().to_owned(), Shape::from(tensor.shape()));
    let is_aligned = tensor.address().is_multiple_of(dtype.size().max(1) as u64);
    let bytes = match is_aligned && tensor.len_bytes() > 0 {
        true => Bytes::from_shared(bytes::Bytes::from(tensor), AllocationProperty::Native),
        false => Bytes::from_bytes_vec(tensor.bytes().to_vec()),
    };
    let packed = PackTensor::new(name, dtype, shape, None, bytes);
    bridge::into_data(packed)
}

/// burn's type of elements of a file; `None` if it has none.
fn burn_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

/// An error of ringload as one of burn's format.
fn pack(error: Error) -> PackError {
    PackError::IoError(error.to_string())
}

fn unpack(error: PackError) -> Error {
    Error::new(ErrorKind::InvalidCheckpoint, error.to_string())
}
