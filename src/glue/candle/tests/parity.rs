//! The tensors that ringload gives candle are those that candle reads itself.
//!
//! Hazards: casts on the way that round otherwise than candle, or twice; memory that overlaps with what
//! is read into it; tensors whose offsets are congruent to no address; types that candle does not have;
//! parts of tensors that belong to another rank.

#![allow(clippy::unwrap_used)]

#[path = "support/llama.rs"]
mod llama;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::{Shard, ShardedSafeTensors};
use candle_transformers::models::llama::{Cache, Llama};
use ringload::{Loader, MemoryLimit, Progress};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const CPU: Device = Device::Cpu;

#[allow(unsafe_code)]
fn mapped(files: &[PathBuf], dtype: DType) -> VarBuilder<'static> {
    // SAFETY: nobody changes the files.
    unsafe { VarBuilder::from_mmaped_safetensors(files, dtype, &CPU).unwrap() }
}

/// The bits of all elements: equal for two tensors only if the tensors are equal, NaN included.
fn bits(tensor: &Tensor) -> (DType, Vec<usize>, Vec<u64>) {
    let flat = tensor.flatten_all().unwrap();
    let bits = match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>().unwrap().iter().map(|it| it.to_bits().into()).collect(),
        DType::F64 => flat.to_vec1::<f64>().unwrap().iter().map(|it| it.to_bits()).collect(),
        DType::F16 => {
            flat.to_vec1::<half::f16>().unwrap().iter().map(|it| it.to_bits().into()).collect()
        }
        DType::BF16 => {
            flat.to_vec1::<half::bf16>().unwrap().iter().map(|it| it.to_bits().into()).collect()
        }
        DType::U8 => flat.to_vec1::<u8>().unwrap().iter().map(|&it| it.into()).collect(),
        DType::U32 => flat.to_vec1::<u32>().unwrap().iter().map(|&it| it.into()).collect(),
        DType::I16 => flat.to_vec1::<i16>().unwrap().iter().map(|&it| it as u64).collect(),
        DType::I32 => flat.to_vec1::<i32>().unwrap().iter().map(|&it| it as u64).collect(),
        DType::I64 => flat.to_vec1::<i64>().unwrap().iter().map(|&it| it as u64).collect(),
        other => panic!("{other:?}"),
    };
    (tensor.dtype(), tensor.dims().to_vec(), bits)
}

/// A file with tensors of many types, sizes and offsets. Returns their names.
fn write_many(path: &Path) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(3);
    let kinds = [
        Dtype::F32,
        Dtype::U8,
        Dtype::BF16,
        Dtype::F16,
        Dtype::I64,
        Dtype::U16,
        Dtype::F64,
        Dtype::I16,
        Dtype::U32,
        Dtype::I32,
    ];
    let mut tensors = Vec::new();
    for (kind, dtype) in kinds.into_iter().enumerate() {
        for (number, elements) in [1, 3, 1000, 40_000, 600_001].into_iter().enumerate() {
            let mut bytes = vec![0; elements * dtype.bitsize() / 8];
            random.fill(&mut bytes);
            // candle and ringload quieten a signalling NaN alike, but not all of its payload.
            if matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let each = dtype.bitsize() / 8;
                bytes.chunks_mut(each).for_each(|it| it[each - 1] &= 0xbb);
            }
            tensors.push((format!("t{kind}.{number}"), dtype, vec![elements], bytes));
        }
    }
    tensors.push(("scalar".to_owned(), Dtype::F32, vec![], vec![0, 0, 128, 63]));
    tensors.push(("nothing".to_owned(), Dtype::BF16, vec![0, 7], vec![]));
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
    tensors.into_iter().map(|(name, ..)| name).collect()
}

/// Every type, cast to every float, eager and lazy, from the disk and from the page cache, and with a
/// checked load, is what candle has. So is a tensor that is asked for in another type than the builder's.
#[test]
fn every_type_is_cast_as_by_candle() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.safetensors");
    let names = write_many(&path);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let theirs = mapped(std::slice::from_ref(&path), dtype);
        ringload_measure::page_cache::evict(&path).unwrap();
        let checked = Loader::new().check_finite(false).memory_limit(MemoryLimit::Min);
        let builders = [
            ringload_candle::var_builder(&Loader::new(), &path, dtype, &CPU).unwrap(),
            ringload_candle::var_builder(&Loader::new(), &path, dtype, &CPU).unwrap(),
            ringload_candle::lazy_var_builder(&checked, &path, dtype, &CPU).unwrap(),
        ];
        for name in &names {
            for asked in [dtype, DType::F32, DType::F16, DType::BF16] {
                let expected = bits(&theirs.get_unchecked_dtype(name, asked).unwrap());
                for ours in &builders {
                    let found = bits(&ours.get_unchecked_dtype(name, asked).unwrap());
                    assert!(found == expected, "{name} as {asked:?}, of {dtype:?}");
                }
            }
        }
    }
    let loaded = ringload_candle::load(&Loader::new(), &path, None, &CPU).unwrap();
    let expected = candle_core::safetensors::load(&path, &CPU).unwrap();
    assert_eq!(loaded.len(), names.len());
    assert!(names.iter().all(|name| bits(&loaded[name]) == bits(&expected[name])));
}

/// A loader that checks bytes passes them through its ring, and gives the same tensors; the loader's
/// selection counts.
#[test]
fn checks_and_selections_of_the_loader_count() {
    let directory = TempDir::new().unwrap();
    let config = llama::config(128, 192, 1000, 2);
    let files = llama::write(directory.path(), &config, Dtype::BF16, 3).unwrap();
    let loader = Loader::new().check_finite(true).memory_limit(MemoryLimit::Min);
    let ours = ringload_candle::load(&loader, directory.path(), Some(DType::F32), &CPU).unwrap();
    let theirs = mapped(&files, DType::F32);
    assert_eq!(ours.len(), 2 * 9 + 3);
    for (name, tensor) in &ours {
        assert!(bits(tensor) == bits(&theirs.get_unchecked(name).unwrap()), "{name}");
    }
    let some = Loader::new().tensors(["model.layers.1.mlp.*"]);
    let some = ringload_candle::load(&some, directory.path(), None, &CPU).unwrap();
    assert_eq!(some.len(), 3);
    let head = Loader::new().names(["lm_head.weight"]);
    let head = ringload_candle::var_builder(&head, directory.path(), DType::F32, &CPU).unwrap();
    assert!(head.contains_tensor("lm_head.weight") && !head.contains_tensor("model.norm.weight"));
    let left_out = head.get(128, "model.norm.weight").unwrap_err();
    assert!(left_out.to_string().contains("cannot find tensor model.norm.weight"), "{left_out}");

    let path = directory.path().join("nan.safetensors");
    let bytes = f32::NAN.to_le_bytes();
    let views = [("nan", TensorView::new(Dtype::F32, vec![1], &bytes).unwrap())];
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let refused = ringload_candle::var_builder(&loader, &path, DType::F32, &CPU).err().unwrap();
    assert!(refused.to_string().contains("NaN"), "{refused}");
}

/// The handle of the loader counts the bytes of the file once, whichever way they take.
#[test]
fn the_loader_shows_the_progress_of_a_load() {
    let directory = TempDir::new().unwrap();
    let config = llama::config(128, 192, 1000, 2);
    llama::write(directory.path(), &config, Dtype::BF16, 3).unwrap();
    let tensors = llama::tensors(&config, Dtype::BF16);
    let bytes = ringload_measure::checkpoint::data_bytes(&tensors);
    for loader in [Loader::new(), Loader::new().check_finite(true)] {
        let progress = Progress::new();
        let loader = loader.progress(&progress);
        ringload_candle::var_builder(&loader, directory.path(), DType::F32, &CPU).unwrap();
        assert_eq!((progress.done_bytes(), progress.total_bytes()), (bytes, bytes));
    }
}

/// candle's Llama has the same logits, bit by bit, of both types of files.
#[test]
fn logits_are_those_of_the_mapped_model() {
    for dtype in [Dtype::F32, Dtype::BF16] {
        let directory = TempDir::new().unwrap();
        let config = llama::config(128, 192, 1000, 2);
        let files = llama::write(directory.path(), &config, dtype, 3).unwrap();
        let (loader, location) = (Loader::new(), directory.path());
        let logits = |weights| {
            let model = Llama::load(weights, &config).unwrap();
            let mut cache = Cache::new(true, DType::F32, &config, &CPU).unwrap();
            let tokens = Tensor::new(&[[1_u32, 20, 300]], &CPU).unwrap();
            bits(&model.forward(&tokens, 0, &mut cache).unwrap())
        };
        let theirs = logits(mapped(&files, DType::F32));
        let eager = ringload_candle::var_builder(&loader, location, DType::F32, &CPU).unwrap();
        assert!(logits(eager) == theirs);
        let lazy = ringload_candle::lazy_var_builder(&loader, location, DType::F32, &CPU).unwrap();
        assert!(logits(lazy) == theirs);
    }
}

/// Each rank has the part that candle's own builder gives it, in both dimensions; and what cannot be
/// split is refused, not a panic.
#[test]
fn every_rank_has_its_part() {
    let directory = TempDir::new().unwrap();
    let config = llama::config(128, 192, 1000, 1);
    let files = llama::write(directory.path(), &config, Dtype::BF16, 2).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: nobody changes the files.
    let theirs = unsafe { ShardedSafeTensors::var_builder(&files, DType::F32, &CPU).unwrap() };
    let loader = Loader::new();
    // Models name this type with a lifetime, as they name candle's.
    let ours: ringload_candle::ShardedVarBuilder<'_> =
        ringload_candle::sharded(&loader, directory.path(), DType::F32, &CPU).unwrap();
    for tensor in llama::tensors(&config, Dtype::BF16) {
        for world_size in [1, 2, 4] {
            for (dim, rank) in
                (0..tensor.shape.len()).flat_map(|dim| (0..world_size).map(move |rank| (dim, rank)))
            {
                let shard = Shard { dim, rank, world_size };
                let get =
                    |builder: &dyn Fn() -> candle_core::Result<Tensor>| bits(&builder().unwrap());
                let shape = &tensor.shape[..];
                let expected = get(&|| theirs.get_with_hints(shape, &tensor.name, shard));
                let found = get(&|| ours.get_with_hints(shape, &tensor.name, shard));
                assert!(found == expected, "{} {shard:?}", tensor.name);
            }
        }
    }
    let refused = |dim, rank, world_size| {
        let shard = Shard { dim, rank, world_size };
        ours.get_with_hints(128, "model.norm.weight", shard).unwrap_err().to_string()
    };
    assert!(refused(0, 0, 3).contains("equally along dim 0 into 3"));
    assert!(refused(1, 0, 2).contains("no dimension 1"));
    assert!(refused(0, 2, 2).contains("no rank 2"));
}

/// A mask of BOOL, which candle does not have, must not keep a model from loading that does not ask
/// for it. What is wrong is said with the name of the tensor.
#[test]
fn what_candle_does_not_have_is_an_error_of_that_tensor_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.safetensors");
    let views = [
        ("mask", TensorView::new(Dtype::BOOL, vec![2], &[0, 1]).unwrap()),
        ("weight", TensorView::new(Dtype::U8, vec![2], &[3, 4]).unwrap()),
    ];
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let loader = Loader::new();
    let builder = ringload_candle::var_builder(&loader, &path, DType::F32, &CPU).unwrap();
    assert_eq!(builder.get(2, "weight").unwrap().to_vec1::<f32>().unwrap(), [3.0, 4.0]);
    assert!(builder.contains_tensor("mask") && !builder.contains_tensor("none"));
    for (what, words) in [
        (builder.get(2, "mask").unwrap_err(), "tensor mask of BOOL"),
        (builder.get(3, "weight").unwrap_err(), "shape mismatch for weight"),
        (builder.get(3, "none").unwrap_err(), "cannot find tensor none"),
        (ringload_candle::load(&loader, &path, None, &CPU).unwrap_err(), "tensor mask of BOOL"),
    ] {
        assert!(what.to_string().contains(words), "{what}");
    }
    let missing = directory.path().join("none.safetensors");
    let error = ringload_candle::load(&loader, &missing, None, &CPU).unwrap_err();
    assert!(error.to_string().contains("none.safetensors"), "{error}");
}
