//! `mistralrs-core/src/utils/varbuilder_utils.rs` with the patch of docs/candle.md, and what it needs of
//! its crate, as the function is not public there.
#![allow(dead_code)]

mod lora {
    #[derive(Clone, Debug)]
    pub struct LoraConfig;
}

mod utils {
    pub mod progress {
        /// Iterators without a progress bar.
        pub trait IterWithProgress<'a, T>: Iterator<Item = T> + Sized + 'a {
            fn with_progress(self, _is_silent: bool) -> Self {
                self
            }
        }

        impl<'a, T, I: Iterator<Item = T> + 'a> IterWithProgress<'a, T> for I {}
    }
}

// tests/mistral.sh copies this file beside the patched sources.
#[path = "../../core/src/utils/varbuilder_utils.rs"]
mod varbuilder_utils;

#[cfg(test)]
mod tests {
    use super::varbuilder_utils::{DeviceForLoadTensor, from_mmaped_safetensors};
    use candle_core::{DType, Device, Tensor};
    use mistralrs_quant::{Shard, ShardedVarBuilder};
    use regex::Regex;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn write(path: &Path, names: &[&str]) {
        let numbers: Vec<u8> = (0..12 * 8).flat_map(|i| [i as u8, 0x3f]).collect();
        let view = || TensorView::new(Dtype::BF16, vec![12, 8], &numbers).unwrap();
        let views = names.iter().map(|name| (*name, view()));
        safetensors::serialize_to_file(views, None, path).unwrap();
    }

    fn build(paths: &[PathBuf]) -> ShardedVarBuilder {
        from_mmaped_safetensors(
            paths.to_vec(),
            Vec::new(),
            Some(DType::F32),
            &Device::Cpu,
            vec![None],
            true,
            Some(Arc::new(vec![Regex::new(r"layers\.1\.").unwrap()])),
            |name| !name.contains("vision"),
            Arc::new(|_| DeviceForLoadTensor::Base),
        )
        .unwrap()
    }

    /// The patched way and mistral.rs's own way without mmap give the same tensors, whole and in parts,
    /// and both leave out dummies and what the model does not want.
    #[test]
    fn the_patched_loading_gives_the_same_tensors() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b"]
            .iter()
            .map(|name| directory.path().join(format!("{name}.safetensors")))
            .collect();
        write(&paths[0], &["layers.0.weight", "layers.1.weight"]);
        write(&paths[1], &["head.weight", "vision.weight"]);
        let patched = build(&paths);
        // SAFETY: no other thread of this test reads the environment.
        unsafe { std::env::set_var("MISTRALRS_NO_MMAP", "1") };
        let own = build(&paths);
        let numbers = |tensor: Tensor| {
            (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        for name in ["layers.0.weight", "head.weight"] {
            let shards = [
                Shard::default(),
                Shard::Simple { dim: 0, rank: 1, world_size: 2 },
                Shard::Simple { dim: 1, rank: 3, world_size: 4 },
                Shard::Offset { dim: 0, offset: 3, len: 5 },
            ];
            for shard in shards {
                let get = |builder: &ShardedVarBuilder| {
                    numbers(builder.get_with_hints((12, 8), name, shard).unwrap())
                };
                assert_eq!(get(&patched), get(&own), "{name} {shard:?}");
            }
        }
        for name in ["layers.1.weight", "vision.weight", "none"] {
            assert_eq!(patched.contains_tensor(name), own.contains_tensor(name), "{name}");
            assert!(
                !patched.contains_tensor(name) && patched.get((12, 8), name).is_err(),
                "{name}"
            );
        }
    }
}
