//! The weights of one rank of a tensor-parallel model.

use crate::builder::Weights;
use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::{Backend, Shard, SimpleBackend, VarBuilderArgs};
use ringload::Pick;

/// A builder whose hints are [`Shard`]s. It takes the place of candle's type of this name.
pub type ShardedVarBuilder<'a> = VarBuilderArgs<'a, ShardedWeights>;

/// The weights of a checkpoint, of which each rank reads its part.
///
/// Parts of the first dimension are one read. Parts of an inner dimension are many short ones, which
/// are read together with what lies between them where that is little.
pub struct ShardedWeights(Weights);

impl ShardedWeights {
    /// The ranks' view of `weights`.
    pub fn new(weights: Weights) -> Self {
        Self(weights)
    }
}

impl Backend for ShardedWeights {
    type Hints = Shard;

    /// Reads the part of `shard`. As in candle, `shape` is that of the whole tensor, and is compared
    /// only if the shard is all of it.
    fn get(
        &self,
        shape: Shape,
        name: &str,
        shard: Shard,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if shard.world_size == 1 {
            return SimpleBackend::get(&self.0, shape, name, Init::default(), dtype, device);
        }
        let info = self.0.info(name)?;
        let picks = picks_of(name, info.shape(), shard)?;
        self.0.read(info, Some(&picks), dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.get_unchecked(name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_tensor(name)
    }
}

fn picks_of(name: &str, shape: &[usize], shard: Shard) -> Result<Vec<Pick>> {
    let Shard { dim, rank, world_size } = shard;
    let Some(&size) = shape.get(dim) else {
        return Err(Error::Msg(format!("tensor {name} of {shape:?} has no dimension {dim}")));
    };
    if rank >= world_size {
        return Err(Error::Msg(format!("there is no rank {rank} among {world_size} ranks")));
    }
    if !size.is_multiple_of(world_size) {
        let shape = shape.into();
        return Err(Error::ShapeMismatchSplit { shape, dim, n_parts: world_size }.bt());
    }
    let part = size / world_size;
    let mut picks: Vec<Pick> = shape.iter().map(|&size| Pick::all(size)).collect();
    picks[dim] = (rank * part..(rank + 1) * part).into();
    Ok(picks)
}
