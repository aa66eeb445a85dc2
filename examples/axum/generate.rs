//! A Llama of candle that continues lists of tokens.

use crate::Outcome;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use ringload::Loader;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A loaded model.
pub struct Generator {
    model: Llama,
    config: Config,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Returns the configuration beside a checkpoint that is a local directory; `None` if there is none.
pub fn configuration(location: &str) -> Option<PathBuf> {
    Some(Path::new(location).join("config.json")).filter(|path| path.is_file())
}

impl Generator {
    /// Loads the model at `location`.
    pub fn load(loader: &Loader, location: &str, configuration: &Path) -> Outcome<Self> {
        let config: LlamaConfig = serde_json::from_slice(&fs::read(configuration)?)?;
        let config = config.into_config(false);
        let (dtype, device) = (DType::F32, Device::Cpu);
        let weights = ringload_candle::var_builder(loader, location, dtype, &device)?;
        Ok(Self { model: Llama::load(weights, &config)?, config })
    }

    /// Continues `tokens` by the `count` most probable ones.
    pub fn continued(&self, tokens: &[u32], count: usize) -> Outcome<Vec<u32>> {
        let vocabulary = self.config.vocab_size;
        if tokens.is_empty() || tokens.iter().any(|&token| token as usize >= vocabulary) {
            return Err(format!("tokens are numbers below {vocabulary}, at least one").into());
        }
        if tokens.len() + count > self.config.max_position_embeddings {
            let most = self.config.max_position_embeddings;
            return Err(format!("the model takes at most {most} tokens").into());
        }
        let device = Device::Cpu;
        let mut cache = Cache::new(true, DType::F32, &self.config, &device)?;
        let (mut next, mut position) = (tokens.to_vec(), 0);
        let mut result = Vec::with_capacity(count);
        for _ in 0..count {
            let input = Tensor::new(&next[..], &device)?.unsqueeze(0)?;
            let logits = self.model.forward(&input, position, &mut cache)?;
            position += next.len();
            let token = logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?;
            result.push(token);
            next = vec![token];
        }
        Ok(result)
    }
}
